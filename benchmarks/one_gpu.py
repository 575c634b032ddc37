"""The full-size model on one GPU: decode and prefill against transformers' own forward.

    python benchmarks/one_gpu.py                                Qwen3.5-35B-A3B's shapes, bf16
    python benchmarks/one_gpu.py --variant none --variant fp8   and FP8 beside it
    python benchmarks/one_gpu.py --variant none --variant none:cuda_graphs      what graphs bring
    python benchmarks/one_gpu.py --device cpu --model small     the same on the CPU, to try it

One process. A variant is a quantization and, after a colon, switches that are off in it; those of
one quantization share one set of random weights, and transformers that of the plain ones. In every
round each of them takes its turn: a turn is a run of decode steps on requests that have
`--context` tokens each, or one prefill of a prompt of `--prefill` tokens. A cell is the median
[lowest, highest] over the rounds. Decode steps of the engine are its real ones: scheduled, launched
ahead, tokens drawn, copied back and taken.

"Idle" is the time of a step in which the device had nothing to do, by device events at the begin
and end of what each step launches; "host" is what the host computed in a step, hidden or not.
"""

import argparse
import gc
import json
import logging
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from engine_vs_transformers import FULL_SIZE, spread, transformers_model
from one_gpu_turns import (
    Decoding,
    TheirDecoding,
    our_prefill,
    synchronize,
    their_prefill,
)

from upcurve.engine.build import DTYPES
from upcurve.engine.kernels.peers import Peers, box
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.model.weight_map import parameter_bytes
from upcurve.engine.parallel.boxes import most_rows
from upcurve.engine.parallel.group import Group, SilentGroup
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.ranks import ALONE, Ranks
from upcurve.engine.platform import shares_memory
from upcurve.engine.switches import Switches


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--variant", action="append", help="none or fp8, and :SWITCH,... off")
    parser.add_argument("--batch", default="1,16,64")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--prefill", type=int, default=8192)
    parser.add_argument("--step-tokens", default="2048,8192", help="most tokens of a prefill step")
    parser.add_argument("--steps", type=int, default=24, help="decode steps of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-transformers", action="store_true")
    arguments = parser.parse_args()
    arguments.variant = arguments.variant or ["none"]
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    models = load(arguments)
    decode_table(models, arguments)
    prefill_table(models, arguments)


def load(arguments):
    """Return what is compared: the engine's models by name, and transformers'."""
    config = small_config(**(FULL_SIZE if arguments.model == "35b" else {}))
    config["max_position_embeddings"] = 32768
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    device = torch.device(arguments.device)
    models = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        drawn = {}
        for variant in arguments.variant:
            kind, _, off = variant.partition(":")
            if kind not in drawn:
                drawn[kind] = draw(folder, device, kind, getattr(arguments, "tp", 1))
            first = drawn[kind]
            label = "fp8" if kind == "fp8" else str(first.dtype).removeprefix("torch.")
            label += f", {off} off" if off else ""
            switches = Switches.without(off)
            models[label] = Model(
                *(first.shapes, first.weights, switches, first.dtype, first.ranks, first.peers)
            )
        if not arguments.no_transformers and "none" in drawn:
            models["transformers"] = transformers_model(folder, drawn["none"], device)
    return models


def draw(folder, device, quantization, tp=1):
    started = time.perf_counter()
    layout = Layout(tp)
    # The others are not there to map each other's memory.
    model = load_model(
        folder,
        device=device,
        dtype=DTYPES["bf16" if device.type == "cuda" else "fp32"],
        switches=Switches.without("peer_memory" if tp > 1 else ""),
        load_format="dummy",
        quantization=quantization,
        ranks=Ranks(layout, 0, layout.share(0), Echo(tp), Group()) if tp > 1 else ALONE,
    )
    if tp > 1 and shares_memory(device):
        width = model.shapes.hidden_size
        rows = most_rows(tp, width, model.dtype, device)
        peers = Peers.of(0, (box(1, rows, width, model.dtype, device),))
        model = Model(*(model.shapes, model.weights, Switches(), model.dtype, model.ranks, peers))
    synchronize()
    size, took = parameter_bytes(model.weights) / 2**30, time.perf_counter() - started
    print(f"{quantization}: {size:.2f} GiB of parameters, drawn in {took:.1f} s", flush=True)
    return model


class Echo(SilentGroup):
    """Other ranks that say what this one says, at once."""

    def gather(self, x):
        """Return x as often as there are ranks."""
        return x.repeat(self.size, *[1] * (x.dim() - 1))


def decode_table(models, arguments):
    heads = ("batch", "", "ms a step", "idle, ms", "host, ms", "times transformers", "GiB")
    table = [heads]
    for batch in map(int, arguments.batch.split(",")):
        turns = {
            name: (TheirDecoding if name == "transformers" else Decoding)(model, arguments, batch)
            for name, model in models.items()
        }
        found = rounds(turns, arguments.rounds)
        theirs = [each[0] for each in found.get("transformers", [])]
        for name, each in found.items():
            steps, idle, host = zip(*each, strict=True)
            ratio = [a / b for a, b in zip(theirs, steps, strict=False)]
            table.append(
                (
                    batch,
                    name,
                    spread(steps, ".2f"),
                    "-" if idle[0] is None else spread(idle, ".3f"),
                    "-" if host[0] is None else spread(host, ".2f"),
                    spread(ratio, ".2f") if ratio else "-",
                    f"{allocated():.1f}",
                )
            )
            print(table[-1], flush=True)
        turns.clear()
        forget()
    show(f"Decode, {arguments.context} tokens of context", table)


def prefill_table(models, arguments):
    length = arguments.prefill
    turns = {}
    for name, model in models.items():
        if name == "transformers":
            turns[name] = their_prefill(model, length, arguments.device)
        else:
            for tokens in map(int, arguments.step_tokens.split(",")):
                turns[f"{name}, steps of {tokens}"] = our_prefill(model, arguments, tokens)
    for turn in turns.values():
        turn()
    found = {name: [] for name in turns}
    for index in range(arguments.rounds):
        for name in ordered(turns, index):
            found[name].append(turns[name]())
    theirs = [each for each, _ in found.get("transformers", [])]
    table = [("", "tokens/s", "ms a step", "host, ms", "times transformers")]
    for name, turned in found.items():
        seconds, host = zip(*turned, strict=True)
        ratio = [a / b for a, b in zip(theirs, seconds, strict=False)]
        steps = -(-length // int(name.rsplit(" ", 1)[-1])) if host[0] is not None else 1
        table.append(
            (
                name,
                spread([length / each for each in seconds], ",.0f"),
                spread([1000 * each / steps for each in seconds], ".1f"),
                "-" if host[0] is None else spread([each / steps for each in host], ".1f"),
                spread(ratio, ".2f") if ratio else "-",
            )
        )
    show(f"Prefill of one prompt of {length} tokens", table)


def rounds(turns, count):
    """Let each take its turn in every round, in an order that alternates."""
    found = defaultdict(list, {name: [] for name in turns})
    for index in range(count):
        for name in ordered(turns, index):
            found[name].append(turns[name].turn())
    return found


def ordered(turns, index):
    return list(turns) if index % 2 else list(reversed(turns))


def allocated():
    return torch.cuda.memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def forget():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def show(title, table):
    widths = [max(len(str(row[column])) for row in table) for column in range(len(table[0]))]
    print(f"\n{title}\n", flush=True)
    for row in table:
        print("  ".join(f"{cell!s:{width}}" for cell, width in zip(row, widths, strict=True)))
    print(flush=True)


if __name__ == "__main__":
    main()
