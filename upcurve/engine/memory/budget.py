"""How much memory the requests may use: from what is free, and from what could ever be used."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.caches import CacheShapes, CacheTypes


@dataclass(frozen=True, slots=True)
class Budget:
    """The memory that requests get, in bytes and in tokens."""

    bytes_per_token: int
    bytes_per_request: int
    max_running_requests: int
    token_capacity: int
    page_size: int

    @property
    def pages(self) -> int:
        """KV pages, without the one for padding."""
        return self.token_capacity // self.page_size

    @property
    def total_bytes(self) -> int:
        """Bytes of all pages and slots."""
        return (
            self.bytes_per_token * self.token_capacity
            + self.bytes_per_request * self.max_running_requests
        )

    def describe(self) -> str:
        """Return the one line that the server prints at its start."""
        return (
            f"memory for requests: {self.total_bytes / 2**30:.2f} GiB "
            f"({self.token_capacity:,} KV tokens of {self.bytes_per_token:,} B, "
            f"{self.max_running_requests} states of {self.bytes_per_request / 2**20:.2f} MiB)"
        )


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes, with what torch holds but does not use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


def bytes_per_token(shapes: CacheShapes, types: CacheTypes) -> int:
    """Return the KV bytes of one token over all layers."""
    layers, heads = len(shapes.attention_layers), shapes.num_key_value_heads
    return layers * 2 * heads * shapes.head_dim * types.key_value.itemsize


def bytes_per_request(shapes: CacheShapes, types: CacheTypes) -> int:
    """Return the state bytes of one request over all layers."""
    state = (
        shapes.linear_num_value_heads * shapes.linear_key_head_dim * shapes.linear_value_head_dim
    )
    window = shapes.linear_conv_kernel_dim * shapes.conv_dim
    return len(shapes.linear_layers) * (
        state * types.recurrent.itemsize + window * types.activation.itemsize
    )


def budget(
    shapes: CacheShapes,
    types: CacheTypes,
    *,
    max_running_requests: int,
    context_length: int,
    page_size: int,
    available: int,
    max_kv_tokens: int | None = None,
) -> Budget:
    """Size the memory: enough for every running request at full context, or what is available.

    Args:
        shapes: of the model.
        types: of the caches.
        max_running_requests: states; one more is kept for padding.
        context_length: most tokens of one request.
        page_size: tokens of a page.
        available: bytes that pages and states may take together.
        max_kv_tokens: most tokens of all requests together; None leaves it to the memory.

    Raises:
        EngineInputError: not even one request of `context_length` tokens fits.
    """
    per_token, per_request = bytes_per_token(shapes, types), bytes_per_request(shapes, types)
    pages_each = -(-context_length // page_size)
    wanted = max_running_requests * pages_each
    if max_kv_tokens is not None and max_kv_tokens < pages_each * page_size:
        raise EngineInputError(
            "max-kv-tokens",
            f"{max_kv_tokens} do not hold one request of {context_length} tokens in pages of "
            f"{page_size}",
            f"give {pages_each * page_size} or more, or lower --context-length",
        )
    # One page and one state belong to padding.
    left = available - per_request * (max_running_requests + 1) - per_token * page_size
    affordable = wanted if per_token == 0 else left // (per_token * page_size)
    most = wanted if max_kv_tokens is None else max_kv_tokens // page_size
    pages = min(wanted, affordable, most)
    if left < 0 or pages < pages_each:
        raise EngineInputError(
            "context-length",
            f"one request of {context_length} tokens beside {max_running_requests} states needs "
            f"more than the {available / 2**30:.1f} GiB that are free for them",
            "lower --context-length or --max-running-requests",
        )
    return Budget(per_token, per_request, max_running_requests, pages * page_size, page_size)
