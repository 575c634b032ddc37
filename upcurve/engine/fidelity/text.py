"""The text that is compared: passages of token ids, from a file or drawn by a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.fidelity.forced import Passage
from upcurve.engine.serve.tokenizer import ByteTokenizer

OF_THE_MODEL = "divergence.jsonl"
"""The text that a checkpoint folder may hold, for its model."""
LENGTHS = (1, 15, 16, 17, 33, 63, 64, 65, 90, 127, 128, 129, 200, 31, 2, 150)
"""Prompts that are drawn: at and beside the sides of pages, and of chunks of the delta rule."""
DRAWN_OUTPUT = 24
PASSAGES = 64
"""Of a file, unless more are asked for."""


def text_of(
    folder: Path, file: Path | None, *, vocab_size: int, context: int, limit: int | None = None
) -> tuple[dict[str, Passage], str]:
    """Return the passages to compare by, and what they are in a few words.

    Args:
        folder: of the checkpoint, whose tokenizer makes tokens of a file's text.
        file: JSON lines; None: the folder's own `divergence.jsonl`, or tokens drawn by a seed.
        vocab_size: of the model.
        context: most tokens of a passage.
        limit: most passages.

    Raises:
        EngineInputError: as `read`.
    """
    own = folder / OF_THE_MODEL
    chosen = file or (own if own.is_file() else None)
    if chosen is None:
        passages = drawn(vocab_size, context=context, limit=limit)
        return passages, "tokens drawn by a seed"
    tokenizer = ByteTokenizer.from_folder(folder)
    passages = read(
        chosen, tokenizer, vocab_size=vocab_size, context=context, limit=limit or PASSAGES
    )
    return passages, chosen.name


def drawn(vocab_size: int, *, context: int, limit: int | None = None) -> dict[str, Passage]:
    """Draw passages of many lengths: for models whose words mean nothing."""
    generator = torch.Generator().manual_seed(0)
    passages = {}
    for index, length in enumerate(LENGTHS[:limit]):
        prompt = max(1, min(length, context - DRAWN_OUTPUT))
        count = prompt + min(DRAWN_OUTPUT, context - prompt)
        ids = torch.randint(vocab_size, (count,), generator=generator).tolist()
        passages[f"drawn-{index}"] = Passage(ids[:prompt], ids[prompt:])
    return passages


def read(
    file: Path, tokenizer: ByteTokenizer | None, *, vocab_size: int, context: int, limit: int
) -> dict[str, Passage]:
    """Read JSON lines, the first `limit` of them.

    A line has `prompt` and `output`, both texts or both lists of token ids, or `question` and
    `answer`, texts that are made a prompt as GSM8K's are. `id` names it.

    Raises:
        EngineInputError: the file is missing or empty, or a line is none of these, or does not fit
            the model; by its number.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EngineInputError("text", f"{file}: {error}", "give a file of JSON lines") from error
    passages: dict[str, Passage] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or len(passages) == limit:
            continue
        try:
            value = json.loads(line)
            passage = passage_of(value, tokenizer)
        except (ValueError, KeyError, TypeError) as error:
            raise EngineInputError(
                "text",
                f"line {number} of {file.name}: {error}",
                "give prompt and output, or question and answer",
            ) from error
        _check(passage, f"line {number} of {file.name}", vocab_size, context)
        passages[str(value.get("id", number))] = passage
    if not passages:
        raise EngineInputError("text", f"{file} has no line", "give one passage or more")
    return passages


def passage_of(value: Any, tokenizer: ByteTokenizer | None) -> Passage:
    """Return what one line says, as `read` describes it.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is neither text nor token ids.
        ValueError: there is text, and no tokenizer.
    """
    if not isinstance(value, Mapping):
        raise TypeError("not an object")
    if "question" in value:
        # The form of GSM8K's prompts in EleutherAI's evaluation harness.
        value = {
            "prompt": f"Question: {value['question']}\nAnswer:",
            "output": f" {value['answer']}",
        }
    prompt, output = value["prompt"], value["output"]
    if isinstance(prompt, str) and isinstance(output, str):
        if tokenizer is None:
            raise ValueError("text, but the model's folder has no tokenizer.json")
        return Passage(
            tokenizer.encode(prompt, add_special_tokens=True),
            tokenizer.encode(output, add_special_tokens=False),
        )
    for ids in (prompt, output):
        if not isinstance(ids, list) or not all(type(each) is int for each in ids):
            raise TypeError("prompt and output are not both texts, or both lists of token ids")
    return Passage(prompt, output)


def _check(passage: Passage, where: str, vocab_size: int, context: int) -> None:
    ids = [*passage.prompt, *passage.output]
    if not passage.prompt or not passage.output:
        raise EngineInputError("text", f"{where}: prompt or output is empty", "fill both")
    if min(ids) < 0 or max(ids) >= vocab_size:
        raise EngineInputError(
            "text",
            f"{where}: a token id is not in 0..{vocab_size - 1}",
            "use the model's tokenizer",
        )
    if len(ids) > context:
        raise EngineInputError(
            "text", f"{where} has {len(ids)} tokens, the context is {context}", "shorten it"
        )
