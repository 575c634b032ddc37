"""What each switch is worth on a CPU: time of a decode step of the engine, by model and batch.

    python benchmarks/cpu_switches.py [--rounds 5]

Two models: the trained one in models/small (4 experts, 2 a token) and the one that `upcurve demo`
measures (random weights, 64 experts, 8 a token). CPU time of one thread, so that other work on the
machine counts little; the least of some rounds, in which all configurations take turns.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from upcurve.engine.build import build_engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.schedule.request import SamplingParameters

OFF = ("", "grouped_experts", "shared_expert_fusion", "fused_projections", "all")
BATCHES = (1, 4, 8)
PROMPT, STEPS = 64, 16
SMALL = Path(__file__).parents[1] / "models" / "small"


def seconds(engine, batch, seed, tokens):
    draw = random.Random(seed)  # noqa: S311
    prompts = [[draw.randrange(259, 1152) for _ in range(PROMPT)] for _ in range(batch)]
    begun = time.process_time()
    engine.generate(prompts, SamplingParameters(max_tokens=tokens, temperature=0, ignore_eos=True))
    return time.process_time() - begun


def step_ms(engines, batch, rounds):
    """Return the least CPU time of a decode step of each engine."""
    best = dict.fromkeys(engines, float("inf"))
    for turn in range(rounds + 1):
        for off, engine in engines.items():
            prefill = seconds(engine, batch, turn, 1)
            whole = seconds(engine, batch, turn, 1 + STEPS)
            if turn:  # the first round warms up
                best[off] = min(best[off], 1000 * (whole - prefill) / STEPS)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("model            batch  " + "  ".join(f"{off or 'none':>20}" for off in OFF))
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), small_config(), seed=0)
        for name, path in (("models/small", SMALL), ("64 experts", Path(folder))):
            engines = {
                off: build_engine(path, EngineOptions(device="cpu", threads=1, off=off))
                for off in OFF
            }
            for batch in BATCHES:
                times = step_ms(engines, batch, rounds)
                row = "  ".join(f"{times[off]:20.2f}" for off in OFF)
                print(f"{name:15}  {batch:5}  {row}", flush=True)


if __name__ == "__main__":
    main()
