"""What the switches of the engine move, on one GPU: throughput against interactivity for each.

    python benchmarks/switch_story.py --save rows.csv
    upcurve import rows.csv && upcurve compare --baseline "all off" --every 20
    python benchmarks/switch_story.py --device cpu --model small --input 64 --concurrency 1,2

The three published changes (softmax top-k routing, Gemma-style RMSNorm, the shared expert as one of
the routed ones) alone and together over an engine with every switch off; everything on; and
everything on without one of them, and without all three. All share weights, caches and requests:
what is timed is decode steps of as many requests as the concurrency says, in the middle of their
output, the variants in turns whose order alternates; and one prompt alone. What a whole run would
take follows from both: prompts one after the other, then every step of all, with no prompt computed
beside a decode. Every repeat has prompts of its own. Without graphs only up to --slow streams.
"""

import argparse
import csv
import datetime
import statistics
import time
from argparse import Namespace

import torch
from one_gpu import load
from one_gpu_turns import checked, synchronize
from switched import Switched

from upcurve import __version__
from upcurve.engine.build import engine_of
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.switches import Switches

SKIPPED = 2
"""Steps of a turn before those that are timed: the first may compile, and ends the one before."""
PUBLISHED = ("fused_topk", "fused_norm", "shared_expert_fusion")
STEP_TOKENS = {"cuda": 8192, "cpu": 512}
HARDWARE = {"cuda": "H200", "cpu": "CPU"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--quantization", default="fp8", choices=["none", "fp8"])
    parser.add_argument("--input", type=int, default=8192)
    parser.add_argument("--output", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a turn")
    parser.add_argument("--concurrency", default="1,4,16,64")
    parser.add_argument("--slow", type=int, default=4, help="most streams of what has no graphs")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", help="CSV file of the points, for upcurve import")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    variant = [arguments.quantization]
    options = Namespace(**vars(arguments), variant=variant, no_transformers=True)
    (model,) = load(options).values()
    story = Story(model, arguments)
    for repeat in range(arguments.repeats):
        story.measure(repeat)
    story.show()
    if arguments.save:
        story.save(arguments.save)


def variants():
    """Return titles and what is off."""
    rest = [name for name in Switches.names() if name not in PUBLISHED]
    alone = {
        f"{name} alone": ",".join(rest + [other for other in PUBLISHED if other != name])
        for name in PUBLISHED
    }
    without = {f"without {name}": name for name in PUBLISHED}
    return {
        "all off": "all",
        **alone,
        "all three": ",".join(rest),
        "without all three": ",".join(PUBLISHED),
        **without,
        "everything on": "",
    }


class Story:
    """One engine whose model changes its switches between steps."""

    def __init__(self, model, arguments):
        self.arguments = arguments
        self.counts = [int(each) for each in arguments.concurrency.split(",")]
        most = max(self.counts)
        options = EngineOptions(
            context_length=arguments.input + arguments.output,
            max_running_requests=most,
            max_batch_tokens=STEP_TOKENS[arguments.device] + most,
            max_kv_tokens=(most + 1) * (arguments.input + arguments.output + 16),
        )
        self.engine = engine_of(model, options, torch.device(arguments.device))
        self.off = variants()
        self.switched = Switched(self.engine, model, most)
        self.prefill, self.step = {}, {}

    def measure(self, repeat):
        """Measure every variant once at every concurrency, and on one prompt."""
        titles = list(self.off) if repeat % 2 else list(reversed(self.off))
        for title in titles:
            self.switched.turn_to(self.off[title])
            # What is compiled at the first prompt is not what a user waits for.
            for _ in range(1 if repeat else 2):
                took = self.one_prompt(repeat)
            self.prefill.setdefault(title, []).append(took)
            print(f"{title}: a prompt in {took:.3f} s", flush=True)
        for count in self.counts:
            self.switched.turn_to("")
            self.begin(count, repeat)
            for title in titles:
                off = self.off[title]
                if count > self.arguments.slow and not self.switched.has_graphs(off):
                    continue
                self.switched.turn_to(off)
                took = self.steps(count)
                self.step.setdefault((title, count), []).append(took)
                print(f"{title}, {count}: a step in {1000 * took:.2f} ms", flush=True)
            self.engine.abort_all()

    def one_prompt(self, repeat):
        """Return the seconds from a prompt to its first token."""
        synchronize()
        started = time.perf_counter()
        self.add(1, 1, repeat)
        while self.engine.has_work:
            checked(self.engine.step())
        return time.perf_counter() - started

    def begin(self, count, repeat):
        """Bring as many requests to where all decode."""
        self.add(count, self.arguments.output, 100 * repeat + count)
        begun = set()
        while len(begun) < count:
            begun.update(event.request_id for event in checked(self.engine.step()))

    def add(self, count, output, seed):
        """Queue requests."""
        generator = torch.Generator().manual_seed(seed)
        size = (count, self.arguments.input)
        sampling = SamplingParameters(output, temperature=0, ignore_eos=True)
        rows = torch.randint(3, self.engine.vocab_size, size, generator=generator).tolist()
        for index, ids in enumerate(rows):
            self.engine.add(Request(str(index), ids, sampling))

    def steps(self, count):
        """Return the seconds of a step."""
        times = []
        for _ in range(SKIPPED + self.arguments.steps + 1):
            tokens = len(checked(self.engine.step()))
            # One that is launched ahead gives its tokens with the next.
            if tokens % count:
                raise SystemExit(f"{tokens} tokens of a step over {count} requests")
            times.append(time.perf_counter())
        return (times[-1] - times[SKIPPED]) / self.arguments.steps

    def points(self):
        """Yield variant, concurrency, repeat, tokens/s, tokens/s per user and ms per token."""
        more = self.arguments.output - 1
        total = self.arguments.input + self.arguments.output
        for (title, count), steps in self.step.items():
            for repeat, step in enumerate(steps):
                prompt, decode = self.prefill[title][repeat], more * step
                # A user waits for the prompts of the others too.
                user = more / ((count - 1) * prompt + decode)
                yield title, count, repeat, count * total / (count * prompt + decode), user, step

    def show(self):
        """Print the table."""
        print(f"\n{self.arguments.input} in, {self.arguments.output} out\n")
        print("| | streams | prompt, s | ms a step | tok/s/GPU | tok/s/user | of everything on |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        found = {}
        for title, count, _, total, user, step in self.points():
            found.setdefault((title, count), []).append((total, user, 1000 * step))
        for (title, count), each in sorted(found.items(), key=lambda item: item[0][1]):
            totals, users, steps = zip(*each, strict=True)
            base = statistics.median(at[0] for at in found["everything on", count])
            cells = [spread(self.prefill[title], 3), spread(steps, 2), spread(totals, 0)]
            cells += [spread(users, 1), f"{statistics.median(totals) / base:.2f}"]
            print(f"| {title} | {count} | {' | '.join(cells)} |")

    def save(self, path):
        """Write the points as rows that `upcurve import` takes."""
        arguments = self.arguments
        with open(path, "w", newline="", encoding="utf-8") as file:  # noqa: PTH123
            writer = csv.writer(file)
            names = "series measured_on hardware engine engine_version model precision isl osl tp"
            names += " gpus concurrency repeat tput_per_gpu interactivity tpot_ms"
            writer.writerow(names.split())
            for title, count, repeat, total, user, _ in self.points():
                row = [
                    title,
                    datetime.datetime.now(datetime.UTC).date(),
                    HARDWARE[arguments.device],
                ]
                model = "Qwen3.5-35B-A3B" if arguments.model == "35b" else "small"
                precision = arguments.quantization if arguments.quantization != "none" else "bf16"
                row += ["upcurve", __version__, model, precision]
                row += [arguments.input, arguments.output, 1, 1, count, repeat]
                row += [f"{total:.2f}", f"{user:.3f}", f"{1000 / user:.4f}"]
                writer.writerow(row)


def spread(values, digits):
    values = list(values)
    middle, low, high = (f"{f(values):,.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} [{low}, {high}]"


if __name__ == "__main__":
    main()
