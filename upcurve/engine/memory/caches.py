"""The tensors behind pages and slots: keys and values, recurrent and convolution state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class CacheTypes:
    """What the caches are kept in."""

    activation: torch.dtype
    """Of the convolution state, and of keys and values where they have no type of their own."""
    key_value: torch.dtype
    """The activation dtype, or float8_e4m3fn: half the bytes, 3 bits of mantissa, scale 1."""
    recurrent: torch.dtype = torch.float32
    """float32, or bfloat16: half the bytes of the largest traffic of a decode step."""

    @classmethod
    def of(cls, activation: torch.dtype, key_value: str, recurrent: str) -> CacheTypes:
        """Choose by the names of options: "auto" or "fp8", and "fp32" or "bf16"."""
        return cls(
            activation,
            key_value=torch.float8_e4m3fn if key_value == "fp8" else activation,
            recurrent=torch.bfloat16 if recurrent == "bf16" else torch.float32,
        )


@dataclass(frozen=True, slots=True)
class KeyValuePages:
    """KV of one gated-attention layer: keys and values, [pages, page_size, kv_heads, head_dim]."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class RecurrentState:
    """State of one Gated DeltaNet layer, one slot for each running request."""

    recurrent: torch.Tensor
    """[slots, value_heads, key_head_dim, value_head_dim]."""
    convolution: torch.Tensor
    """[slots, kernel, conv_dim]: a ring (`causal_conv`); channel innermost: reads are coalesced."""


class Caches:
    """All layers' pages and slots, and the page table that finds them.

    There is one slot more than running requests: rows that only pad a step use it.
    """

    def __init__(
        self,
        shapes: CacheShapes,
        types: CacheTypes,
        *,
        slots: int,
        pages: int,
        page_size: int,
        pages_per_request: int,
        device: torch.device,
    ) -> None:
        self.page_size = page_size
        self.padding_slot = slots
        self.page_tables = torch.zeros(
            slots + 1, pages_per_request, dtype=torch.int32, device=device
        )
        """int32 [slots + 1, pages_per_request]."""
        layers = len(shapes.attention_layers)
        kv = (layers, 2, pages + 1, page_size, shapes.num_key_value_heads, shapes.head_dim)
        # Zeroed once: what was never written is finite.
        self.kv = torch.zeros(kv, device=device, dtype=types.key_value)
        """[attention layers, 2, pages + 1, page_size, kv_heads, head_dim]: keys, then values."""
        self.attention: Mapping[int, KeyValuePages] = {
            layer: KeyValuePages(*self.kv[index])
            for index, layer in enumerate(shapes.attention_layers)
        }
        head = (
            shapes.linear_num_value_heads,
            shapes.linear_key_head_dim,
            shapes.linear_value_head_dim,
        )
        tail = (shapes.linear_conv_kernel_dim, shapes.conv_dim)
        layers = len(shapes.linear_layers)
        self.recurrent = torch.zeros(layers, slots + 1, *head, device=device, dtype=types.recurrent)
        """[linear layers, slots + 1, value_heads, key_head_dim, value_head_dim]."""
        self.convolution = torch.zeros(
            layers, slots + 1, *tail, device=device, dtype=types.activation
        )
        """[linear layers, slots + 1, kernel, conv_dim]."""
        self.linear: Mapping[int, RecurrentState] = {
            layer: RecurrentState(self.recurrent[index], self.convolution[index])
            for index, layer in enumerate(shapes.linear_layers)
        }

    def clear(self, slots: torch.Tensor) -> None:
        """Zero the state of slots int64 [N]: a sequence that begins has seen nothing."""
        self.recurrent.index_fill_(1, slots, 0)
        self.convolution.index_fill_(1, slots, 0)

    def write_tables(self, places: torch.Tensor, pages: torch.Tensor) -> None:
        """Write pages int64 [N] to flat places int64 [N] (slot * pages_per_request + index)."""
        self.page_tables.view(-1).index_copy_(0, places, pages.to(torch.int32))

    def unwritten(self, reservations: Sequence[Reservation]) -> tuple[list[int], list[int]]:
        """Return places and pages that the page table lacks, and count them as written."""
        places: list[int] = []
        pages: list[int] = []
        width = self.page_tables.shape[1]
        for each in reservations:
            first, last = each.written, len(each.pages)
            if first < last:
                start = each.slot * width
                places += range(start + first, start + last)
                pages += each.pages[first:]
                each.written = last
        return places, pages

    def check(self, reservations: Sequence[Reservation]) -> None:
        """Prove that the page table on the device is the one on the host.

        Raises:
            RuntimeError: a row differs.
        """
        for each in reservations:
            row = self.page_tables[each.slot, : each.written].tolist()
            if row != each.pages[: each.written]:
                raise RuntimeError(f"the page table of slot {each.slot} is not its owner's")
