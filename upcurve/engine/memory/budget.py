"""How much memory the requests may use: from what is free, and from what could ever be used."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.memory import CacheShapes

FREE_SHARE = 0.8
"""Share of the memory that is free after loading; the rest is for activations."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The memory that requests get, in bytes and in tokens."""

    bytes_per_token: int
    bytes_per_request: int
    max_running_requests: int
    token_capacity: int

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
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def budget(
    shapes: CacheShapes,
    *,
    max_running_requests: int,
    context_length: int,
    page_size: int,
    dtype: torch.dtype,
    free: int,
) -> Budget:
    """Size the memory: enough for every running request at full context, or what is free.

    Raises:
        EngineInputError: not even one request of `context_length` tokens fits.
    """
    element = dtype.itemsize
    per_token = (
        len(shapes.attention_layers) * 2 * shapes.num_key_value_heads * shapes.head_dim * element
    )
    per_request = len(shapes.linear_layers) * (
        shapes.linear_num_value_heads
        * shapes.linear_key_head_dim
        * shapes.linear_value_head_dim
        * 4
        + (shapes.linear_conv_kernel_dim - 1) * shapes.conv_dim * element
    )
    pages_each = -(-context_length // page_size)
    wanted = max_running_requests * pages_each * page_size
    left = int(free * FREE_SHARE) - per_request * max_running_requests
    affordable = wanted if per_token == 0 else left // per_token // page_size * page_size
    tokens = min(wanted, affordable)
    if left < 0 or tokens < pages_each * page_size:
        raise EngineInputError(
            "context-length",
            f"one request of {context_length} tokens beside {max_running_requests} states needs "
            f"more than the {free / 2**30:.1f} GiB that are free",
            "lower --context-length or --max-running-requests",
        )
    return Budget(per_token, per_request, max_running_requests, tokens)
