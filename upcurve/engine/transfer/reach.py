"""Addresses of slices of a rank's caches, for who writes into them by address."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes."""

    @classmethod
    def of(cls, x: torch.Tensor) -> Place:
        """Return that of a tensor."""
        size = x.element_size()
        return cls(x.data_ptr(), tuple(x.shape), tuple(each * size for each in x.stride()))

    def at(self, *indices: int | np.ndarray) -> np.ndarray:
        """Return the addresses of elements, int64; indices left out are 0."""
        found = np.asarray(self.address, dtype=np.int64)
        for index, stride in zip(indices, self.strides, strict=False):
            found = found + np.asarray(index, dtype=np.int64) * stride
        return found


@dataclass(frozen=True, slots=True)
class Reach:
    """A rank's caches, as `CacheViews` has them, and how a library finds their memory."""

    agent: str
    """Name of who has registered it."""
    metadata: bytes
    """What the library has to know of it."""
    host: str
    """`host_identity` of the process."""
    device: int
    rows: Place
    recurrent: Place
    convolution: Place


def token_runs(
    here: np.ndarray, there: np.ndarray, *, whole: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join tokens that follow each other on both sides.

    Args:
        here: rows of the tokens, int64 [N].
        there: likewise.
        whole: whether all heads of a row are sent; tokens do not touch otherwise.

    Returns:
        The first row of each run here and there, and how many tokens it has.
    """
    if not whole or not len(here):
        return here, there, np.ones(len(here), dtype=np.int64)
    breaks = np.flatnonzero((np.diff(here) != 1) | (np.diff(there) != 1)) + 1
    starts = np.concatenate([[0], breaks])
    return here[starts], there[starts], np.diff(np.concatenate([starts, [len(here)]]))
