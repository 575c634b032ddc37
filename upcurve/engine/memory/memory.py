"""The two kinds of memory of a hybrid model: KV pages and recurrent-state slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from upcurve.engine.memory.reservation import Reservation


class CacheShapes(Protocol):
    """The sizes of a model that its memory depends on."""

    @property
    def attention_layers(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def linear_layers(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def num_key_value_heads(self) -> int: ...  # noqa: D102
    @property
    def head_dim(self) -> int: ...  # noqa: D102
    @property
    def linear_num_value_heads(self) -> int: ...  # noqa: D102
    @property
    def linear_key_head_dim(self) -> int: ...  # noqa: D102
    @property
    def linear_value_head_dim(self) -> int: ...  # noqa: D102
    @property
    def linear_conv_kernel_dim(self) -> int: ...  # noqa: D102
    @property
    def conv_dim(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class KeyValuePages:
    """KV of one gated-attention layer: keys and values, [pages, page_size, kv_heads, head_dim]."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class RecurrentState:
    """State of one Gated DeltaNet layer, one slot per running request."""

    recurrent: torch.Tensor
    """float32 [slots, value_heads, key_head_dim, value_head_dim]."""
    convolution: torch.Tensor
    """[slots, kernel - 1, conv_dim], oldest first, channel innermost: a step reads it coalesced."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of the memory is owned."""

    pages: int
    total_pages: int
    slots: int
    total_slots: int


class Memory:
    """Pages and slots of all layers, handed out as owned reservations.

    A page number or slot number means the same place in every layer. Page 0 of the pool belongs to
    nobody and stays zero: padded page tables read there.
    """

    def __init__(
        self,
        shapes: CacheShapes,
        *,
        max_running_requests: int,
        token_capacity: int,
        page_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.page_size = page_size
        self.device = device
        self._total_pages = -(-token_capacity // page_size)
        self._total_slots = max_running_requests
        kv = (self._total_pages + 1, page_size, shapes.num_key_value_heads, shapes.head_dim)
        self.attention: Mapping[int, KeyValuePages] = {
            layer: KeyValuePages(
                torch.zeros(kv, device=device, dtype=dtype),
                torch.zeros(kv, device=device, dtype=dtype),
            )
            for layer in shapes.attention_layers
        }
        recurrent = (
            max_running_requests,
            shapes.linear_num_value_heads,
            shapes.linear_key_head_dim,
            shapes.linear_value_head_dim,
        )
        convolution = (
            max_running_requests,
            shapes.linear_conv_kernel_dim - 1,
            shapes.conv_dim,
        )
        self.linear: Mapping[int, RecurrentState] = {
            layer: RecurrentState(
                torch.zeros(recurrent, device=device, dtype=torch.float32),
                torch.zeros(convolution, device=device, dtype=dtype),
            )
            for layer in shapes.linear_layers
        }
        # Lowest first, so that the same requests get the same places on every run.
        self._free_pages = list(range(self._total_pages, 0, -1))
        self._free_slots = list(range(max_running_requests - 1, -1, -1))
        self._owned: dict[int, Reservation] = {}

    def fits(self, tokens: int) -> bool:
        """Return whether a request of that many tokens could ever be admitted."""
        return self._pages_for(tokens) <= self._total_pages

    def reserve(self, tokens: int) -> Reservation | None:
        """Hand out zeroed pages for `tokens` tokens and a zeroed slot; None if not free now."""
        count = self._pages_for(tokens)
        if not self._free_slots or count > len(self._free_pages):
            return None
        pages = [self._free_pages.pop() for _ in range(count)]
        slot = self._free_slots.pop()
        for state in self.linear.values():
            state.recurrent[slot].zero_()
            state.convolution[slot].zero_()
        reservation = Reservation(pages, slot, self.page_size, self.device, self._take_back)
        # A mask hides what an earlier owner left, but not its NaN or infinity: 0 * NaN is NaN.
        for cache in self.attention.values():
            cache.keys.index_fill_(0, reservation.page_table, 0)
            cache.values.index_fill_(0, reservation.page_table, 0)
        self._owned[slot] = reservation
        return reservation

    def usage(self) -> Usage:
        """Return what is owned and what there is."""
        return Usage(
            self._total_pages - len(self._free_pages),
            self._total_pages,
            self._total_slots - len(self._free_slots),
            self._total_slots,
        )

    def check(self) -> None:
        """Prove that every page and slot is either free or owned by exactly one reservation.

        Raises:
            RuntimeError: something leaks or is shared.
        """
        pages = self._free_pages + [page for held in self._owned.values() for page in held.pages]
        slots = self._free_slots + [held.slot for held in self._owned.values()]
        if sorted(pages) != list(range(1, self._total_pages + 1)):
            raise RuntimeError("a KV page leaks or is shared")
        if sorted(slots) != list(range(self._total_slots)):
            raise RuntimeError("a state slot leaks or is shared")

    def _pages_for(self, tokens: int) -> int:
        return max(1, -(-tokens // self.page_size))

    def _take_back(self, reservation: Reservation) -> None:
        del self._owned[reservation.slot]
        self._free_pages.extend(reversed(reservation.pages))
        self._free_slots.append(reservation.slot)
