from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from models.training.data import AHEAD, PROMPT_WEIGHT, Block, Blocks, make_block
from models.training.text import END_OF_TEXT

ROWS, LENGTH = 6, 510


@pytest.fixture(scope="module")
def block(tokenizer: Tokenizer) -> Block:
    return make_block(tokenizer, 5, ROWS, LENGTH)


def documents(tokenizer: Tokenizer, block: Block) -> list[tuple[str, list[float]]]:
    """Text and weights of every document, cut at the end token; padding left out."""
    stop, out = tokenizer.token_to_id(END_OF_TEXT), []
    for tokens, weights in zip(*block, strict=True):
        begin = 0
        for end in np.flatnonzero(tokens == stop):
            if end > begin:
                text = tokenizer.decode(tokens[begin:end].tolist(), skip_special_tokens=False)
                out.append((text, weights[begin : end + 1].tolist()))
            begin = end + 1
        assert begin == LENGTH + AHEAD  # nothing is cut off at the end of a row
    return out


def test_rows_hold_whole_documents_and_little_else(tokenizer: Tokenizer, block: Block) -> None:
    tokens, weights = block
    assert tokens.shape == weights.shape == (ROWS, LENGTH + AHEAD)
    assert (tokens.dtype, weights.dtype) == (np.int16, np.float16)
    found = documents(tokenizer, block)
    assert len(found) > ROWS
    for text, _ in found:
        assert text.startswith(("Question: ", "<|im_start|>"))
        last = text.removesuffix("<|im_end|>").split("\n")[-1]
        assert last.startswith("#### ")
        assert last.removeprefix("#### ").isdigit()
    assert (weights > 0).mean() > 0.85


def test_answers_weigh_one_and_prompts_less(tokenizer: Tokenizer, block: Block) -> None:
    small = float(np.float16(PROMPT_WEIGHT))
    for text, weights in documents(tokenizer, block):
        assert set(weights) == {small, 1.0}
        heavy = sum(weight == 1.0 for weight in weights)
        if text.startswith("Question: "):
            pieces = text.split("\nAnswer:")
            answers = [pieces[1]] if len(pieces) == 2 else [p.split("\n\n")[0] for p in pieces[1:]]
            assert heavy == sum(len(tokenizer.encode(each).ids) for each in answers) + 1
            assert weights[-1] == 1.0  # the end is learnt


def test_blocks_come_in_order_of_their_seeds(tokenizer: Tokenizer) -> None:
    blocks = Blocks(tokenizer, seed=5, rows=2, length=LENGTH, workers=2)
    try:
        for seed, block in zip(range(5, 8), blocks, strict=False):
            wanted = make_block(tokenizer, seed, 2, LENGTH)
            assert all(np.array_equal(a, b) for a, b in zip(block, wanted, strict=True))
    finally:
        blocks.close()
