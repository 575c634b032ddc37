"""A warm-up runs on the real caches, and leaves nothing behind that a request could read."""

import torch

from upcurve.engine.execute.warm_up import WarmUpStep
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.model.model import load_model
from upcurve.engine.switches import Switches

CPU = torch.device("cpu")


def test_steps_write_to_the_slot_and_the_page_that_are_nobodys(tiny):
    model = load_model(tiny, device=CPU, dtype=torch.float32, switches=Switches())
    types = CacheTypes.of(torch.float32, "auto", "fp32")
    caches = Caches(
        model.shapes, types, slots=3, pages=5, page_size=16, pages_per_request=4, device=CPU
    )
    for step in (WarmUpStep(2, ()), WarmUpStep(0, (20,)), WarmUpStep(1, (5, 3))):
        logits = model.forward(step.batch(caches.padding_slot, CPU), caches)
        assert len(logits) == step.singles + len(step.prompts)
        assert logits.isfinite().all()
    for state in caches.linear.values():
        assert not state.recurrent[:3].any()
        assert not state.convolution[:3].any()
        assert state.recurrent[3].any()
    for pages in caches.attention.values():
        assert not pages.keys[1:].any()
        assert not pages.values[1:].any()
