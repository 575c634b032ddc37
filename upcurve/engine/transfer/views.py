"""A rank's caches as rows of whole numbers: what is moved is bytes, whatever they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from upcurve.engine.memory.memory import PADDING_PAGE

_WHOLE = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


@dataclass(frozen=True, slots=True)
class CacheViews:
    """The three tensors of a rank's caches, here or mapped from another process.

    A unit is the widest whole number that a head's row is a multiple of.
    """

    rows: torch.Tensor
    """[attention layers, 2, (pages + 1) * page_size, kv_heads, units]."""
    recurrent: torch.Tensor
    """[linear layers, slots + 1, value_heads, units]."""
    convolution: torch.Tensor
    """[linear layers, slots + 1, kernel, channels]."""

    @classmethod
    def of(cls, kv: torch.Tensor, recurrent: torch.Tensor, convolution: torch.Tensor) -> CacheViews:
        """View tensors that are shaped as `Caches` has them."""
        channels = convolution.view(_WHOLE[convolution.element_size()])
        return cls(_units(kv.flatten(2, 3)), _units(recurrent.flatten(3)), channels)

    @property
    def device(self) -> torch.device:
        """Where they are, as this process sees it."""
        return self.rows.device

    @property
    def slots(self) -> int:
        """Slots that requests can own."""
        return self.recurrent.shape[1] - 1


def _units(x: torch.Tensor) -> torch.Tensor:
    row = x.shape[-1] * x.element_size()
    return x.view(_WHOLE[next(width for width in _WHOLE if row % width == 0)])


def token_rows(
    pages: Sequence[int], first: int, count: int, page_size: int, total_rows: int
) -> np.ndarray:
    """Return where `count` tokens of a sequence lie, from position `first` on: int64 [count].

    Args:
        pages: of the sequence.
        first: position.
        count: tokens.
        page_size: tokens of a page.
        total_rows: of the cache.

    Raises:
        ValueError: the pages do not hold them, or are not pages of that cache.
    """
    if not 0 <= first <= first + count <= len(pages) * page_size:
        raise ValueError(f"tokens {first} to {first + count} are not in {len(pages)} pages")
    positions = np.arange(first, first + count)
    rows = np.asarray(pages, dtype=np.int64)[positions // page_size] * page_size
    check_rows(rows, page_size, total_rows)
    return rows + positions % page_size


def check_rows(rows: np.ndarray, page_size: int, total_rows: int) -> None:
    """Check that rows are those of pages that can be owned.

    Raises:
        ValueError: one is not.
    """
    begin = (PADDING_PAGE + 1) * page_size
    if len(rows) and not begin <= rows.min() <= rows.max() < total_rows:
        raise ValueError("a page is not one of the cache")
