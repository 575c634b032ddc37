"""Prints what any step may launch that is not compiled ahead of the first request.

A program of its own, because nothing may be interpreted:

    python -m tests.engine.portability.served
"""

import random
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from upcurve.engine.execute import warm_up
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.sampler import Sampler
from upcurve.engine.execute.warm_up import WarmUpStep
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.portability import ahead
from upcurve.engine.portability.chips import CHIPS, as_if_on
from upcurve.engine.portability.fake import fake_tensors
from upcurve.engine.portability.launches import Launches
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduled

MODEL = "models/qwen35-35b-a3b"
OPTIONS = EngineOptions(quantization="fp8", context_length=9472)
RUNS = [("sm_90", 1, 40), ("gfx950", 1, 40), ("sm_90", 2, 20)]
"""Chips, ranks, and how many steps."""


def request(chip, ranks):
    return ahead.Request(
        folder=MODEL,
        options=replace(OPTIONS, tp=ranks),
        architecture=chip.architecture,
        name=chip.name,
        multiprocessors=chip.multiprocessors,
        warp=chip.warp,
        max_batch_tokens=8192 + OPTIONS.max_running_requests,
    )


def any_steps(count, *, max_batch_tokens, max_running_requests):
    chosen = random.Random(0)
    steps = []
    while len(steps) < count:
        prompts = [
            chosen.choice(
                [chosen.randint(2, 40), chosen.randint(40, 1000), chosen.randint(2, 8000)]
            )
            for _ in range(chosen.choice([0, 1, 1, 2, 3, 12]))
        ]
        singles = chosen.choice([0, chosen.randint(0, max_running_requests - len(prompts))])
        step = WarmUpStep(singles, tuple(prompts))
        if 0 < step.tokens <= max_batch_tokens:
            steps.append(step)
    return steps


@contextmanager
def instead(steps):
    before = ahead.warm_up_steps
    ahead.warm_up_steps = steps
    try:
        yield
    finally:
        ahead.warm_up_steps = before


def drawn(chip):
    """Return what the sampler launches for steps of all kinds."""
    vocabulary = ModelShapes.from_folder(Path(MODEL)).vocab_size
    kinds = [
        [{"temperature": 0.0}],
        [{}] * 16,
        [{"seed": 3, "top_k": 1}, {"temperature": 0.0}, {}],
        [{"top_p": 0.5}] * 7,
    ]
    launches = Launches()
    with as_if_on(chip), launches.catch(), fake_tensors():
        device = torch.device("cuda", 0)
        sampler = Sampler(device, seed=0)
        for kind in kinds:
            requests = [Request("a", [0], SamplingParameters(1, **given)) for given in kind]
            # A graph leaves more rows than are drawn.
            logits = torch.empty(64, vocabulary, device=device)[: len(kind)]
            sampler.sample(logits, [Scheduled(each, 0, 1, draws=True) for each in requests])
    return launches.variants


def main():
    assert ahead.warm_up_steps is warm_up.warm_up_steps
    for architecture, ranks, steps in RUNS:
        chip = CHIPS[architecture]
        compiled = ahead.variants(request(chip, ranks), chip)
        with instead(partial(any_steps, steps)):
            launched = ahead.variants(request(chip, ranks), chip) | drawn(chip)
        sums = {each.options.get("ranks", 0) for each in launched.values()}
        sys.stdout.write(f"{architecture} {len(compiled)} {len(launched)} {max(sums)}\n")
        for name, form in sorted(launched.keys() - compiled.keys()):
            sys.stdout.write(f"{chip.architecture} lacks {name}: {form}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
