"""The same request alone and in company: how far its logits move, and when its tokens part.

    python benchmarks/batch_invariance.py                            full layer shapes, on a GPU
    python benchmarks/batch_invariance.py --device cpu --model small float32 on the CPU

A request is computed alone, greedily. Then it is computed again in other arrangements, with its own
tokens forced, so that all of its logits can be compared. "parts at" is the first of its tokens that
would have been another. The same arrangement, twice, has to give the same bits: exits with 1 else.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from engine_vs_transformers import FULL_SIZE
from random_models import random_ids, shapes_config

from upcurve.engine.fidelity.divergence import kl_of_rows
from upcurve.engine.fidelity.forced import ForcedEngine
from upcurve.engine.model.model import load_model
from upcurve.engine.switches import Switches

PROMPT, OUTPUT = 300, 64
LAYERS = {"35b": 8, "small": 4}
REQUESTS = 64
CONTEXT = 512


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--quantization", default="none", choices=["none", "fp8"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    config = shapes_config(arguments.model, LAYERS[arguments.model], FULL_SIZE)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.json").write_text(json.dumps(config))
        model = load_model(
            Path(name),
            device=torch.device(arguments.device),
            dtype=torch.bfloat16 if arguments.device == "cuda" else torch.float32,
            switches=Switches(),
            load_format="dummy",
            quantization=arguments.quantization,
        )
    prompt = random_ids(PROMPT, config["vocab_size"], seed=0)

    def engine(step_tokens, **options):
        sizes = {"requests": REQUESTS, "context": CONTEXT, "step_tokens": step_tokens}
        return ForcedEngine.of(model, arguments.device, **sizes, **options)

    whole, cut = engine(2048), engine(128)
    alone, tokens = whole.run({"mine": (prompt, None)}, OUTPUT)["mine"]

    def company(count):
        others = {
            str(index): (random_ids(17 + 29 * index % 200, config["vocab_size"], index + 1), None)
            for index in range(count - 1)
        }
        return {"mine": (prompt, tokens)} | others

    arrangements = [("alone again", whole, 1), ("alone, prompt in chunks of 128", cut, 1)]
    arrangements += [(f"with {count - 1} others", whole, count) for count in (2, 8, 32, 64)]
    arrangements += [("with 31 others, steps of 128", cut, 32)]
    table = [("", "largest difference", "KL, mean", "KL, max", "same tokens", "parts at", "again")]
    same_bits = True
    for title, running, count in arrangements:
        rows, repeated = (running.run(company(count), OUTPUT)["mine"][0] for _ in range(2))
        equal = torch.equal(rows, repeated)
        same_bits &= equal
        table.append((title, *compared(alone, rows), "same bits" if equal else "DIFFERS"))
    # Enough for all prompts, not for what comes after them.
    scarce = engine(2048, max_kv_tokens=1200)
    # The one that comes last gives way first.
    rows = scarce.run(dict(reversed(company(8).items())), OUTPUT)["mine"][0]
    title = f"last of 8, {scarce.engine.preemptions} preemptions"
    table.append((title, *compared(alone, rows), "-"))
    print("\n| " + " | ".join(table[0]) + " |\n|---|" + "---:|" * (len(table[0]) - 1))
    for row in table[1:]:
        print("| " + " | ".join(row) + " |")
    sys.exit(0 if same_bits else 1)


def compared(wanted, rows):
    divergence = kl_of_rows(wanted, rows)
    same = (rows.argmax(-1) == wanted.argmax(-1)).tolist()
    return (
        f"{(rows - wanted).abs().max():.2e}",
        f"{divergence.mean():.2e}",
        f"{divergence.max():.2e}",
        f"{sum(same)} of {len(same)}",
        str(same.index(False)) if False in same else "-",
    )


if __name__ == "__main__":
    main()
