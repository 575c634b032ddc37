"""Right answers of the small model, by switch, format and concurrency.

    python benchmarks/switch_accuracy.py
    python benchmarks/switch_accuracy.py --device cpu --problems 20 --concurrency 4 --variant none

Every switch alone off, all off and all on, in bf16 and FP8. One engine a format, whose model
changes its switches between runs; as many requests are open as the concurrency says. Greedy; the
shipped problems, from the first; an answer is right where the number behind "####" is (strict
match). The interval is Wilson's. At concurrency 1 fewer problems are asked: every token is a step.
"""

import argparse
import time
from pathlib import Path

import torch
from one_gpu_turns import checked
from switched import Switched
from tokenizers import Tokenizer

from upcurve.accuracy import task as tasks
from upcurve.accuracy.proportions import wilson
from upcurve.accuracy.scoring import is_right
from upcurve.engine.build import DTYPES, engine_of
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.check import switches_of
from upcurve.engine.model.model import load_model
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.switches import Switches

MODEL = Path(__file__).parents[1] / "models" / "small"
CONTEXT = 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--variant", default="none,fp8", help="quantizations")
    parser.add_argument("--concurrency", default="64,16,1")
    parser.add_argument("--problems", type=int, default=500, help="asked at 64 streams")
    parser.add_argument("--off", help="only with these switches off, one at a time; none: all on")
    parser.add_argument("--seconds", type=float, default=1e9, help="then runs are left out")
    arguments = parser.parse_args()
    started = time.monotonic()
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    print("\n| | off | streams | problems | right | 95 % interval | s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    # Those that a CPU has no use for are asked as well: their rows should be equal.
    off = ["", "all", *switches_of(Switches.names(), gpu=True)]
    if arguments.off:
        off = [each.replace("none", "") for each in arguments.off.split(",")]
    for quantization in arguments.variant.split(","):
        asked = Asked(quantization, arguments)
        for streams in map(int, arguments.concurrency.split(",")):
            for each in off:
                if time.monotonic() - started < arguments.seconds:
                    asked.row(each, streams)
        del asked


class Asked:
    """One engine of a format, and what it is asked."""

    def __init__(self, quantization, arguments):
        device = torch.device(arguments.device)
        self.kind = {"none": "bf16" if device.type == "cuda" else "fp32"}.get(quantization, "FP8")
        self.problems = arguments.problems
        model = load_model(
            MODEL,
            device=device,
            dtype=DTYPES["bf16" if device.type == "cuda" else "fp32"],
            switches=Switches(),
            load_format="auto",
            quantization=quantization,
        )
        options = EngineOptions(
            context_length=CONTEXT, max_running_requests=64, max_kv_tokens=66 * CONTEXT
        )
        self.engine = engine_of(model, options, device)
        self.switched = Switched(self.engine, model, options.max_running_requests)
        self.tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        self.task = tasks.problems()

    def row(self, off, streams):
        """Ask, and print what came out."""
        self.switched.turn_to(off)
        count = min(self.problems, max(20, self.problems * streams // 64), len(self.task.items))
        begun = time.perf_counter()
        answers = self.answers(self.task.prompts()[:count], streams)
        took = time.perf_counter() - begun
        items = self.task.items[:count]
        right = sum(is_right(answers[i], each.answer, "strict") for i, each in enumerate(items))
        low, high = wilson(right, count)
        print(
            f"| {self.kind} | {off or 'none'} | {streams} | {count} | {right / count:.1%} "
            f"| {low:.1%} to {high:.1%} | {took:.1f} |",
            flush=True,
        )

    def answers(self, prompts, streams):
        """Return the answers in the order of the prompts."""
        waiting = list(enumerate(self.tokenizer.encode_batch([each.text for each in prompts])))
        waiting.reverse()
        sampling = SamplingParameters(self.task.max_tokens, temperature=0)
        tokens = {index: [] for index in range(len(prompts))}
        open_ones = 0
        while waiting or open_ones:
            while waiting and open_ones < streams:
                index, encoded = waiting.pop()
                self.engine.add(Request(str(index), encoded.ids, sampling))
                open_ones += 1
            for event in checked(self.engine.step()):
                if event.token is not None:
                    tokens[int(event.request_id)].append(event.token)
                open_ones -= event.finish is not None
        ordered = [tokens[index] for index in range(len(prompts))]
        return self.tokenizer.decode_batch(ordered)


if __name__ == "__main__":
    main()
