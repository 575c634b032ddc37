"""How an engine is put together: what options ask for, and what does not fit."""

import pytest
import torch

from upcurve.engine import build
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.model.model import load_model
from upcurve.engine.switches import Switches

CPU = torch.device("cpu")


def test_a_device_without_room_is_one_line_with_a_mend(tiny, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate 3 GiB\nand more lines")

    monkeypatch.setattr(build, "load_model", full)
    with pytest.raises(EngineInputError, match=r"model: .* tried to allocate 3 GiB; use --quant"):
        build.build_engine(tiny, EngineOptions())


def test_the_largest_step_follows_the_device_unless_it_is_given(tiny):
    engine = build.build_engine(tiny, EngineOptions(threads=1))
    assert engine.scheduler._max_batch_tokens == build.CPU_STEP_TOKENS + 64
    engine = build.build_engine(tiny, EngineOptions(threads=1, max_batch_tokens=100))
    assert engine.scheduler._max_batch_tokens == 100
    engine = build.build_engine(tiny, EngineOptions(threads=1, role="prefill"))
    assert engine.scheduler._max_batch_tokens == build.CPU_STEP_TOKENS


@pytest.mark.parametrize(
    ("off", "dtype", "capturable"),
    [
        ("", torch.bfloat16, True),
        ("cuda_graphs", torch.bfloat16, False),
        ("paged_attention", torch.bfloat16, False),
        ("grouped_experts", torch.bfloat16, False),
        ("fused_recurrence,fused_topk,shared_expert_fusion", torch.bfloat16, True),
        ("", torch.float32, True),
    ],
)
def test_a_step_is_captured_only_where_it_needs_nothing_of_the_host(
    tiny, monkeypatch, off, dtype, capturable
):
    # As on a GPU.
    monkeypatch.setattr("upcurve.engine.model.model.runs_kernels", lambda _: True)
    model = load_model(tiny, device=CPU, dtype=dtype, switches=Switches.without(off))
    assert model.capturable is capturable
