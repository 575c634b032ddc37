"""The chunks of a step on the device are those on the host."""

from __future__ import annotations

import torch

from upcurve.engine.kernels.sequences import Chunk, Sequences


def test_rows_are_counted_from_the_first_chunk() -> None:
    chunks = (Chunk(7, 5, 0, 3), Chunk(12, 2, 64, 0), Chunk(14, 9, 1, 8))
    got = Sequences.of(chunks, torch.device("cpu"))
    assert got.slots.tolist() == [3, 0, 8]
    assert got.starts.tolist() == [0, 5, 7, 16]
    assert got.contexts.tolist() == [0, 64, 1]
    assert (got.slots.dtype, got.starts.dtype, got.contexts.dtype) == (
        torch.int64,
        torch.int32,
        torch.int32,
    )
    assert got.chunks is chunks
