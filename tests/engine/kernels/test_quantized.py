"""The layout of quantised rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.quantized import GRAIN, QuantizedRows


@given(count=st.integers(1, 40), width=st.integers(1, 400))
def test_whole_rows_are_the_same_memory_with_what_lies_behind(count: int, width: int) -> None:
    rows = QuantizedRows.empty(count, width, torch.device("cpu"))
    whole = rows.whole()
    blocks = -(-width // 128)
    assert rows.values.shape == (count, width)
    assert rows.scale.shape == (count, blocks)
    assert len(whole.values) == len(whole.scale)
    assert len(whole.values) % GRAIN == 0
    assert count <= len(whole.values) < count + GRAIN
    # All of it is there to be written, and what was there before is in its place.
    whole.values.fill_(1.0)
    whole.scale.copy_(torch.arange(whole.scale.numel()).view(whole.scale.shape))
    assert torch.equal(rows.scale, whole.scale[:count])
    assert (rows.values.float() == 1).all()
    assert whole.scale.stride(0) == 1
