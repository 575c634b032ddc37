"""Logits at the full layer shapes, fewer layers: this engine and transformers against float32.

    python benchmarks/full_shape_logits.py                            on a GPU
    python benchmarks/full_shape_logits.py --device cpu --model small on the CPU, to try it

One set of random bf16 weights. The reference is transformers in float32 (no TF32) on the same
values. Prompts of several lengths, then tokens that are forced, so that all see the same. The
engine computes them through its scheduler, pages, chunks and graphs.

Exits with 1 where the engine in bf16 errs more than `TOLERANCE` times as much as transformers in
bf16 does, in the median or the 99th percentile.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from engine_vs_transformers import FULL_SIZE, transformers_model
from random_models import random_ids, shapes_config

from upcurve.engine.fidelity.divergence import kl_of_rows
from upcurve.engine.fidelity.forced import ForcedEngine
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.switches import Switches

TOLERANCE = 1.25
MARGIN = 0.1
"""Where the two most likely tokens of the reference lie nearer, bf16 may choose either."""
LENGTHS = {"35b": (1, 63, 300, 1200), "small": (1, 63, 130)}
OUTPUT = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--layers", type=int, default=8)
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    config = shapes_config(arguments.model, arguments.layers, FULL_SIZE)
    vocabulary = config["vocab_size"]
    sequences = {
        str(length): random_ids(length + OUTPUT, vocabulary, seed=length)
        for length in LENGTHS[arguments.model]
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        plain = load(folder, arguments.device, "none")
        exact = transformers_model(folder, plain, arguments.device, torch.float32)
        truth = {name: theirs(exact, ids, arguments.device) for name, ids in sequences.items()}
        del exact
        narrow = transformers_model(folder, plain, arguments.device)
        found = {
            "transformers, bf16": {
                n: theirs(narrow, s, arguments.device) for n, s in sequences.items()
            }
        }
        del narrow
        quantized = load(folder, arguments.device, "fp8")
    for name, model, together, options in (
        ("engine, bf16, each alone", plain, False, {"step_tokens": 2048}),
        ("engine, bf16, together, steps of 256", plain, True, {"step_tokens": 256}),
        ("engine, bf16, no switches", without(plain, "all"), True, {"step_tokens": 2048}),
        (
            "engine, bf16, FP8 keys and values",
            plain,
            True,
            {"step_tokens": 2048, "kv_cache_dtype": "fp8"},
        ),
        ("engine, bf16, bf16 state", plain, True, {"step_tokens": 2048, "state_dtype": "bf16"}),
        ("engine, FP8", quantized, True, {"step_tokens": 2048}),
    ):
        found[name] = ours(model, arguments.device, sequences, together, options)
    sys.exit(report(found, truth))


def load(folder, device, quantization):
    return load_model(
        folder,
        device=torch.device(device),
        dtype=torch.bfloat16,
        switches=Switches(),
        load_format="dummy",
        quantization=quantization,
    )


def without(model, off):
    return Model(model.shapes, model.weights, Switches.without(off), model.dtype)


@torch.inference_mode()
def theirs(model, ids, device):
    # The last token has no successor to be compared.
    return model(torch.tensor([ids[:-1]], device=device)).logits[0, -OUTPUT:].float()


def ours(model, device, sequences, together, options):
    engine = ForcedEngine.of(model, device, requests=len(sequences), context=2048, **options)
    parts = {name: (ids[:-OUTPUT], ids[-OUTPUT:]) for name, ids in sequences.items()}
    groups = [parts] if together else [{name: part} for name, part in parts.items()]
    found = {}
    for group in groups:
        found |= {name: logits for name, (logits, _) in engine.run(group, OUTPUT).items()}
    return found


def report(found, truth):
    wanted = torch.cat([truth[name] for name in truth])
    best = wanted.topk(2).values
    clear = best[:, 0] - best[:, 1] > MARGIN
    heads = (
        "",
        "error, median",
        "p99",
        "KL, mean",
        "max",
        "same token",
        f"of {int(clear.sum())} with margin {MARGIN}",
    )
    table, errors = [heads], {}
    for name, by_prompt in found.items():
        logits = torch.cat([by_prompt[each] for each in truth])
        error = (logits - wanted).norm(dim=-1) / wanted.norm(dim=-1)
        divergence = kl_of_rows(wanted, logits)
        same = logits.argmax(-1) == wanted.argmax(-1)
        errors[name] = (error.median().item(), error.quantile(0.99).item())
        table.append(
            (
                name,
                *(f"{each:.2e}" for each in errors[name]),
                f"{divergence.mean():.2e}",
                f"{divergence.max():.2e}",
                f"{int(same.sum())} of {len(same)}",
                f"{int(same[clear].sum())}",
            )
        )
    print("\n| " + " | ".join(table[0]) + " |\n|---|" + "---:|" * (len(table[0]) - 1))
    for row in table[1:]:
        print("| " + " | ".join(row) + " |")
    bound = errors["transformers, bf16"]
    worse = [
        name
        for name, each in errors.items()
        if name.startswith("engine, bf16, ")
        and "FP8" not in name
        and "state" not in name
        and any(a > TOLERANCE * b for a, b in zip(each, bound, strict=True))
    ]
    print(f"\nworse than {TOLERANCE} times transformers: {', '.join(worse) or 'none'}")
    return 1 if worse else 0


if __name__ == "__main__":
    main()
