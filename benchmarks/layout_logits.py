"""Logits of layouts over several GPUs against one GPU's: the same weights, the same tokens.

    python benchmarks/layout_logits.py                              35B shapes, FP8, two GPUs
    python benchmarks/layout_logits.py --model small                a small model, all formats
    python benchmarks/layout_logits.py --device cpu --model small   the same over gloo
    python benchmarks/layout_logits.py --checkpoint models/small --layouts dp2ep2

Passages of many lengths go through one rank and through the ranks of each layout: prompts in chunks
beside decode steps, pages, slots that are used again, graphs on GPUs. Their tokens are given, so
that all see the same; the rows that are compared are those that tokens are drawn from. A seed gives
the same dummy weights in every layout.

Two orders of a sum round differently, so the yardstick is what one rank does in the same format
when only the order changes: "other steps" have half as many tokens and run half as many passages at
once, "plain torch" is every switch off and each passage alone. All are held against the model in
float32 too, as `upcurve diverge` does, where a GPU holds it: not with all layers of 35B.

Seconds are those of loading too, and on a GPU of the first row those of compiling for all rows.

Exits with 1 where anything loses more than the limits of `upcurve diverge` over plain torch: 1.5
times its mean KL and three standard errors, and 1 point of the same token and three.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from engine_vs_transformers import FULL_SIZE
from layouts import Apart, layout_of

from upcurve.engine.build import compile_ahead, device_of
from upcurve.engine.errors import EngineInputError
from upcurve.engine.fidelity.check import (
    Format,
    Limits,
    Reference,
    Steps,
    load,
    options_of,
    serve,
)
from upcurve.engine.fidelity.divergence import diverge
from upcurve.engine.fidelity.forced import context_of
from upcurve.engine.fidelity.pool import RankPool
from upcurve.engine.fidelity.reference import alone, plainly
from upcurve.engine.fidelity.spread import on_host, sendable, spread_logits
from upcurve.engine.fidelity.text import text_of
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.layout_check import check_layout
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.switches import Switches

FORMATS = {"fp32": ("fp32", "none"), "bf16": ("bf16", "none"), "fp8": ("bf16", "fp8")}
SMALL = {
    "num_hidden_layers": 4,
    "max_position_embeddings": 512,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    # Two ranks have whole FP8 blocks.
    "head_dim": 128,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
}
DEFAULTS = {
    "small": ("tp2,tp2ep2", "fp32,bf16,fp8"),
    "35b": ("tp2", "fp8"),
    "checkpoint": ("tp2,tp2ep2,dp2ep2", "fp32,bf16,fp8"),
}
"""Layouts and formats."""
FLOAT32_LAYERS = 12
"""Of the 35B model: with more, one GPU does not hold it in float32 beside the rest."""
HEADS = ("format", "", "against", "rows", "KL mean", "99 %", "largest", "same token")
HEADS += ("largest difference", "seconds", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"], help="dummy weights")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder instead")
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--layouts", help="[default: tp2,tp2ep2; of 35b tp2]")
    parser.add_argument("--formats", help="[default: fp32,bf16,fp8; of 35b fp8]")
    parser.add_argument("--switches-off", default="", help="in the layouts and on one rank")
    parser.add_argument("--passages", type=int, default=8, help="every second of the text")
    parser.add_argument("--seconds", type=float, default=1e9, help="then nothing more is begun")
    arguments = parser.parse_args()
    layouts, formats = DEFAULTS["checkpoint" if arguments.checkpoint else arguments.model]
    arguments.layouts = (arguments.layouts or layouts).split(",")
    arguments.formats = (arguments.formats or formats).split(",")
    unknown = [each for each in arguments.formats if each not in FORMATS]
    if unknown:
        parser.error(f"--formats: {unknown[0]!r} is none of {', '.join(FORMATS)}")
    print(f"torch {torch.__version__}, {vars(arguments)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.checkpoint or described(Path(name), arguments)
        try:
            with Bench(folder, arguments) as bench:
                bench.run()
        except EngineInputError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(2)
    beyond = ", ".join(bench.beyond)
    print(f"\nbeyond the limits: {beyond or 'none'}; {bench.seconds:.0f} s in all")
    sys.exit(1 if beyond else 0)


def described(folder, arguments):
    """Write the config.json of a model whose weights are drawn."""
    config = small_config(**(SMALL if arguments.model == "small" else FULL_SIZE))
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Bench:
    """One model and its text, over the layouts that were asked for."""

    def __init__(self, folder, arguments):
        self.started = time.monotonic()
        self.deadline = self.started + arguments.seconds
        self.folder = folder
        self.device = arguments.device
        self.off = arguments.switches_off
        gpu = self.device == "cuda"
        Switches.without(self.off)
        shapes = ModelShapes.from_folder(folder)
        passages, self.title = text_of(
            folder,
            None,
            vocab_size=shapes.vocab_size,
            context=shapes.max_position_embeddings,
            limit=2 * arguments.passages,
        )
        # Of those that are drawn the first are the shortest.
        self.passages = dict(list(passages.items())[::2])
        self.context = context_of(self.passages)
        # Slots are used again.
        together = max(1, len(self.passages) // 2)
        self.steps = Steps.sized(len(self.passages), gpu=gpu, requests=together)
        drawn = "auto" if arguments.checkpoint else "dummy"
        self.formats = {each: Format(*FORMATS[each], drawn) for each in arguments.formats}
        self.layouts = dict(fitting(arguments.layouts, shapes, "fp8" in self.formats))
        if not self.layouts:
            sys.exit("none of the layouts fits the model")
        large = arguments.model == "35b" and not arguments.checkpoint
        self.in_float32 = not large or shapes.num_layers <= FLOAT32_LAYERS
        self.beyond = []
        self.pools = {}
        torch.set_num_threads(min(16, os.cpu_count()) if gpu else 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pool in self.pools.values():
            pool.close()

    @property
    def seconds(self):
        """Since it was begun."""
        return time.monotonic() - self.started

    def run(self):
        """Print a row for each format and layout."""
        rows = sum(len(each.output) for each in self.passages.values())
        print(f"{rows} rows of {len(self.passages)} passages ({self.title}), {self.steps}")
        first = next(iter(self.layouts.values()))
        self.first = self.pool(first) if first.dp == 1 else self.pool(Layout())
        self.first.call(met)
        print(f"{self.seconds:.0f} s until the ranks had met\n")
        print("| " + " | ".join(HEADS) + " |\n|---|---|---|" + "---:|" * 7 + "---|", flush=True)
        for name, form in self.formats.items():
            if time.monotonic() < self.deadline:
                self.one_format(name, form)

    def pool(self, layout):
        """Return processes for a layout; replicas that share experts need new ones each time."""
        key = (layout.tp, layout.dp)
        if key not in self.pools or layout.dp > 1:
            if key in self.pools:
                self.pools.pop(key).close()
            # Of one tp all have the same connections.
            met = layout if layout.dp > 1 else Layout(layout.tp)
            self.pools[key] = RankPool(met, gpu=self.device == "cuda")
        return self.pools[key]

    def options(self, form, layout):
        """Return those of an engine."""
        return options_of(
            *(form, self.steps, self.context),
            device=self.device,
            off=self.off,
            threads=1,
            memory_share=0.95,
            tp=layout.tp,
            ep=layout.ep,
            dp=layout.dp,
        )

    def one_format(self, name, form):
        """Measure one rank, then each layout."""
        builds = [
            self.options(each, layout)
            for each in self.formats.values()
            for layout in (Layout(), *self.layouts.values())
        ]
        ways = self.first.call(
            *(one_rank, self.folder, form, self.steps, self.passages),
            *(self.options(form, Layout()), self.in_float32, builds),
        )[0]
        found = {each: (on_host(rows, self.passages), took) for each, (rows, took) in ways.items()}
        bases = {"one rank": found["one rank"][0]}
        if "float32" in found:
            bases["float32"] = found.pop("float32")[0]
        comparison = Comparison(name, self.passages, bases, found["plain torch"][0])
        for each, (logits, took) in found.items():
            self.show(comparison, each, logits, took)
        for each, layout in self.layouts.items():
            if time.monotonic() > self.deadline:
                print(f"| {name} | {each} | left out: the time is up |", flush=True)
                continue
            started = time.monotonic()
            logits = spread_logits(
                self.pool(layout), self.folder, self.options(form, layout), self.passages
            )
            self.show(comparison, each, logits, time.monotonic() - started)

    def show(self, comparison, name, logits, seconds):
        """Print rows; note what is beyond the limits."""
        if not comparison.show(name, logits, seconds):
            self.beyond.append(f"{name} in {comparison.form}")


class Comparison:
    """Rows of one format, against what all are held against."""

    def __init__(self, form, passages, bases, plain):
        self.form = form
        self.outputs = {name: each.output for name, each in passages.items()}
        self.bases = bases
        self.limits = {
            name: Limits.over(diverge(base, plain, self.outputs)) for name, base in bases.items()
        }

    def show(self, name, logits, seconds):
        """Print what was found against each base; return whether it is within all limits."""
        within = True
        for base, wanted in self.bases.items():
            if base == name:
                continue
            found = diverge(wanted, logits, self.outputs)
            passed = self.limits[base].passed(found)
            within &= passed
            most = max((logits[each] - wanted[each]).abs().max().item() for each in wanted)
            cells = (
                *(self.form, name, base, f"{found.tokens}"),
                *(f"{each:.1e}" for each in (found.kl_mean, found.kl_p99, found.kl_max)),
                *(f"{found.agreement:.1%}", f"{most:.1e}", f"{seconds:.0f}"),
                "" if passed else "beyond the limits",
            )
            print("| " + " | ".join(cells) + " |", flush=True)
        return within


def fitting(names, shapes, quantized):
    """Yield the layouts that the model can be spread over; say which are left out."""
    for name in names:
        layout = layout_of(name)
        if isinstance(layout, Apart) or layout.engine_ranks == 1:
            sys.exit(f"{name}: give layouts whose ranks compute together: tp2, tp2ep2, dp2ep2")
        try:
            check_layout(shapes, layout, quantized=quantized)
        except EngineInputError as error:
            print(f"{name} is left out: {error.problem}")
            continue
        yield name, layout


def met(place):
    """Answer once all ranks are there."""
    return place.ranks.rank


def one_rank(place, folder, form, steps, passages, options, in_float32, builds):
    """On the first rank: compute the passages in all ways that need no other.

    Returns:
        By name: arrays by passage, and the seconds that it took.
    """
    if place.ranks.rank:
        return None
    torch.set_num_threads(1)
    device, switches = device_of(options), Switches.without(options.off)
    context = context_of(passages)
    # Fewer, so that all of their kernels are compiled.
    other = Steps(steps.step_tokens // 2, (steps.requests + 1) // 2)
    found = {}

    def take(name, way, started=None):
        started = started or time.monotonic()
        logits = sendable(way())
        found[name] = logits, time.monotonic() - started
        # An engine and its graphs hold each other; nothing may be freed while others are captured.
        gc.collect()

    # Of all that come, side by side; nothing where it has been done.
    compiling = [compile_ahead(folder, each, device) for each in builds]
    if in_float32:
        take("float32", lambda: Reference.of(folder, passages, device, form).logits)
    started = time.monotonic()
    model = load(folder, device, form)
    for each in compiling:
        if each is not None:
            each.wait()
    take("one rank", lambda: serve(model, switches, steps, context).logits(passages), started)
    take("other steps", lambda: serve(model, switches, other, context).logits(passages))
    take("plain torch", lambda: alone(plainly(model), passages))
    return found


if __name__ == "__main__":
    main()
