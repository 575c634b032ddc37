"""The steps whose launches are collected: all models, formats and sizes that dispatch can meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.graphs import buckets
from upcurve.engine.execute.warm_up import draw_in_all_ways
from upcurve.engine.kernels.row_copy import copy_rows
from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.layout_check import check_layout
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.portability.absent import absent_model
from upcurve.engine.portability.chips import Chip, as_if_on
from upcurve.engine.portability.fake import fake_tensors
from upcurve.engine.portability.launches import Launches, Variant
from upcurve.engine.portability.models import ServedModel
from upcurve.engine.switches import Switches
from upcurve.engine.transfer.views import CacheViews

SWITCHES = [name for name in Switches.names() if name != "grouped_experts"]
"""That may be off; a loop over experts takes its shapes from the numbers, of which there are none.
"""
LARGEST_BATCH = 256
"""Of decodes."""
PREFILLS = [2**power for power in range(7, 16)]
"""Tokens of the step of one prompt: 128 to 32,768."""
ODD_PREFILLS = [200, 1001]
"""What no tile divides."""
CONTEXT, PAGE_SIZE = 32_768, 16


@dataclass(frozen=True, slots=True)
class Formats:
    """What a model's numbers are kept in."""

    activation: torch.dtype
    quantized: bool
    key_value: torch.dtype
    state: torch.dtype

    def __str__(self) -> str:
        names = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float8_e4m3fn: "fp8"}
        weights = "fp8" if self.quantized else names[self.activation]
        kinds = f"{weights} weights, {names[self.key_value]} KV, {names[self.state]} state"
        return kinds if self.activation == torch.bfloat16 else f"fp32, {kinds}"


BF16, FP32, FP8 = torch.bfloat16, torch.float32, torch.float8_e4m3fn
PLAIN, QUANTIZED = Formats(BF16, False, BF16, FP32), Formats(BF16, True, FP8, FP32)
FORMATS = [
    # Any two choices meet in one of these.
    PLAIN,
    Formats(BF16, False, FP8, BF16),
    Formats(BF16, True, BF16, BF16),
    QUANTIZED,
]
CHECKING = [
    Formats(FP32, False, FP32, FP32),
    Formats(FP32, True, FP8, BF16),
]


@dataclass(frozen=True, slots=True)
class Step:
    """A batch: so many sequences with one token each, and at most one prompt."""

    decodes: int
    prefill: int
    context: int = 0
    """Tokens of the prompt that earlier steps have computed."""

    def __str__(self) -> str:
        parts = [f"{self.decodes} decodes"] * bool(self.decodes)
        parts += [f"prefill of {self.prefill}"] * bool(self.prefill)
        return " + ".join(parts)

    def batch(self, device: torch.device) -> ForwardBatch:
        """Return what the engine would make of it."""
        count = self.decodes + self.prefill
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        chunk = Chunk(self.decodes, self.prefill, self.context, 0)
        return ForwardBatch(
            zeros,
            zeros,
            zeros,
            singles=self.decodes,
            longest=CONTEXT * bool(self.decodes),
            chunks=(chunk,) if self.prefill else (),
            logit_rows=None if not self.prefill else zeros[: self.decodes + 1],
        )


MIXED = [Step(1, 127, 1000), Step(3, 2045, 64)]
LEAST = [Step(64, 0), Step(0, 128)]
FEW = [Step(1, 0), Step(64, 0), Step(256, 0), Step(0, 128), Step(0, 8192), *MIXED[:1]]
"""The smallest, the largest and what lies between: every kernel, in most of its forms."""
MORE_RANKS = [2, 8]
SUMS = [Step(1, 0), Step(64, 0), Step(0, 8192)]
"""Whose sums over ranks are of few rows, and of more than go through memory."""


def every_step() -> list[Step]:
    """Return all batch sizes of graphs, some between them, and prompts of all lengths."""
    decodes = [3, 7, *buckets(LARGEST_BATCH)]
    prompts = [*PREFILLS, *ODD_PREFILLS]
    return [*(Step(n, 0) for n in decodes), *(Step(0, n) for n in prompts), *MIXED]


def variants(
    chip: Chip, models: list[ServedModel], steps: list[Step], *, every: bool
) -> list[Variant]:
    """Run the steps of models on tensors without memory; return what they launch on a chip.

    Args:
        chip: for which dispatch chooses.
        models: over as many GPUs as each is served.
        steps: of each, in every format in which models are served.
        every: run a few of them with each optimisation off by itself, in float32, and over other
            numbers of GPUs, too.
    """
    launches = Launches()
    with as_if_on(chip), launches.catch(), fake_tensors():
        for served in models:
            runs = [_runs(served, formats, Switches(), steps) for formats in FORMATS]
            off = [",".join(SWITCHES), *(SWITCHES if every else ())]
            runs += [
                _runs(served, formats, Switches.without(names), FEW if every else LEAST)
                for names in off
                for formats in (PLAIN, QUANTIZED)
            ]
            if every:
                runs += [_runs(served, formats, Switches(), FEW) for formats in CHECKING]
                runs += [
                    _runs(other, formats, Switches(), SUMS)
                    for formats in (PLAIN, QUANTIZED)
                    for other in _others(served, formats)
                ]
            for run in itertools.chain.from_iterable(runs):
                launches.step, launches.for_speed = run.title, run.for_speed
                try:
                    run.work()
                except Exception as error:
                    error.add_note(f"in {launches.step} on {chip.name}")
                    raise
    return list(launches.variants.values())


@dataclass(frozen=True, slots=True)
class _Run:
    title: str
    for_speed: bool
    work: partial[None]


def _others(served: ServedModel, formats: Formats) -> Iterator[ServedModel]:
    """Yield the model over other numbers of GPUs, as far as it can be spread over them."""
    for count in MORE_RANKS:
        other = replace(served, layout=Layout(tp=count))
        try:
            check_layout(served.shapes, other.layout, quantized=formats.quantized)
        except EngineInputError:
            continue
        yield other


def _runs(
    served: ServedModel, formats: Formats, switches: Switches, steps: list[Step]
) -> Iterator[_Run]:
    # Layers of one kind launch the same.
    shapes = replace(served.shapes, layer_types=("linear_attention", "full_attention"))
    model = absent_model(
        *(shapes, formats.activation, switches, served.layout), quantized=formats.quantized
    )
    device = model.weights.embedding.device
    types = CacheTypes(formats.activation, formats.key_value, formats.state)
    pages = CONTEXT // PAGE_SIZE
    caches = Caches(
        model.shapes,
        types,
        slots=LARGEST_BATCH,
        pages=LARGEST_BATCH * pages,
        page_size=PAGE_SIZE,
        pages_per_request=pages,
        device=device,
    )
    name = f"{served}, {formats}" + "".join(f", no {name}" for name in switches.off())

    def work(step: Step) -> None:
        draw_in_all_ways(model.forward(step.batch(device), caches))

    for step in steps:
        yield _Run(f"{name}: {step}", formats.activation != FP32, partial(work, step))
    if not switches.off():
        yield _Run(f"{name}: a prompt handed over", False, partial(_hand_over, caches))


def _hand_over(caches: Caches) -> None:
    rows = CacheViews.of(caches.kv, caches.recurrent, caches.convolution).rows[0]
    places = torch.zeros(PREFILLS[0], dtype=torch.int64, device=rows.device)
    copy_rows(rows, rows, places, places)
