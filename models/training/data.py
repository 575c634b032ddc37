"""Packed rows of tokens, made by worker processes while the device trains."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult
from random import Random

import numpy as np
from tokenizers import Tokenizer

from models.training.text import END_OF_TEXT, document
from upcurve.accuracy.problems import training

AHEAD = 2
"""Tokens of a row beyond its length: the next one of the last, and the one after that."""
PROMPT_WEIGHT = 0.1
"""Of a prompt's token in the loss; an answer's weighs 1."""

Block = tuple[np.ndarray, np.ndarray]
"""int16 tokens and float16 weights, both [rows, length + 2]."""


def make_block(tokenizer: Tokenizer, seed: int, rows: int, length: int) -> Block:
    """Fill rows with whole documents, first fit by falling length, in random order in a row.

    Rows begin with a document; what remains of a row is filled with the end token at weight 0.
    """
    random, stream, width = Random(seed), training(seed), length + AHEAD  # noqa: S311
    documents: list[tuple[list[int], list[float]]] = []
    total = 0
    while total < rows * width:
        drawn = [document(random, stream) for _ in range(rows)]
        encoded = iter(tokenizer.encode_batch([text for each in drawn for text, _ in each]))
        for segments in drawn:
            ids: list[int] = []
            weights: list[float] = []
            for _, answers in segments:
                piece = next(encoded).ids
                ids += piece
                weights += [1.0 if answers else PROMPT_WEIGHT] * len(piece)
            if len(ids) <= width:
                documents.append((ids, weights))
                total += len(ids)
    documents.sort(key=lambda each: -len(each[0]))
    bins: list[list[tuple[list[int], list[float]]]] = [[] for _ in range(rows)]
    room = [width] * rows
    for each in documents:
        place = next((i for i, free in enumerate(room) if free >= len(each[0])), None)
        if place is not None:
            bins[place].append(each)
            room[place] -= len(each[0])
    tokens = np.full((rows, width), tokenizer.token_to_id(END_OF_TEXT), np.int16)
    weights_out = np.zeros((rows, width), np.float16)
    for row, held in enumerate(bins):
        random.shuffle(held)
        at = 0
        for ids, weights in held:
            tokens[row, at : at + len(ids)] = ids
            weights_out[row, at : at + len(ids)] = weights
            at += len(ids)
    return tokens, weights_out


_tokenizer: Tokenizer | None = None


def _open(text: str) -> None:
    global _tokenizer  # noqa: PLW0603
    _tokenizer = Tokenizer.from_str(text)


def _make(seed: int, rows: int, length: int) -> Block:
    assert _tokenizer is not None
    return make_block(_tokenizer, seed, rows, length)


class Blocks:
    """Blocks in the order of their seeds, a few ahead of their use.

    Args:
        tokenizer: of all text.
        seed: of the first block; the n-th has seed + n.
        rows, length: of a block.
        workers: processes, forked: make this before a device is touched.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, seed: int, rows: int, length: int, workers: int
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._pool = context.Pool(workers, _open, (tokenizer.to_str(),))
        self._seed, self._size = seed, (rows, length)
        self._waiting: deque[AsyncResult[Block]] = deque()
        for _ in range(8 * workers):
            self._ask()

    def _ask(self) -> None:
        self._waiting.append(self._pool.apply_async(_make, (self._seed, *self._size)))
        self._seed += 1

    def __iter__(self) -> Iterator[Block]:
        while True:
            self._ask()
            yield self._waiting.popleft().get()

    def close(self) -> None:
        """End the workers."""
        self._pool.terminate()
        self._pool.join()
