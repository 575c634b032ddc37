"""What the switches of the engine move, on one GPU: throughput against interactivity for each.

    python benchmarks/switch_story.py
    python benchmarks/switch_story.py --device cpu --model small --input 64 --concurrency 1,2

The three published changes (softmax top-k routing, Gemma-style RMSNorm, the shared expert as one of
the routed ones) alone and together over an engine with every switch off, and everything on. Weights
are the same tensors for all; variants take turns, in an order that alternates. A turn sends as many
requests at once as its concurrency says, each with its own prompt, times until all have begun, and
then --steps steps of all together; what the whole output would take follows from these, with no
prompt computed beside a decode. Only everything on goes beyond --slow streams: without, a turn
takes minutes there.
"""

import argparse
import gc
import statistics
import time
from argparse import Namespace

import torch
from one_gpu import load
from one_gpu_turns import checked, new_engine, synchronize

from upcurve.engine.model.model import Model
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.switches import Switches

SKIPPED = 3
"""Steps before those that are timed: the first of a kind may be captured or compiled."""
PUBLISHED = ("fused_topk", "fused_norm", "shared_expert_fusion")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--quantization", default="fp8", choices=["none", "fp8"])
    parser.add_argument("--input", type=int, default=8192)
    parser.add_argument("--output", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--concurrency", default="1,4,16,64")
    parser.add_argument("--slow", type=int, default=4, help="most streams of all but everything on")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    variant = [arguments.quantization]
    options = Namespace(**vars(arguments), variant=variant, no_transformers=True)
    (model,) = load(options).values()
    turns = [
        (title, Switches.without(off), concurrency)
        for concurrency in map(int, arguments.concurrency.split(","))
        for title, off in variants().items()
        if concurrency <= arguments.slow or not off
    ]
    found = {}
    for repeat in range(arguments.repeats):
        for title, switches, concurrency in turns if repeat % 2 else reversed(turns):
            points = found.setdefault((title, concurrency), [])
            points.append(take(model, switches, concurrency, arguments))
            print(f"{title}, {concurrency}: {points[-1]}", flush=True)
    show(found, arguments)


def variants():
    """Return titles and what is off."""
    rest = [name for name in Switches.names() if name not in PUBLISHED]
    alone = {
        f"{name} alone": ",".join(rest + [other for other in PUBLISHED if other != name])
        for name in PUBLISHED
    }
    return {"all off": "all", **alone, "all three": ",".join(rest), "everything on": ""}


def take(model, switches, concurrency, arguments):
    """Return tokens per second of all, and output tokens per second of one."""
    engine = new_engine(
        Model(model.shapes, model.weights, switches, model.dtype),
        arguments,
        context=arguments.input + arguments.output,
        requests=concurrency,
        tokens=8192 + concurrency if arguments.device == "cuda" else 512,
    )
    vocabulary = model.shapes.vocab_size
    # What is compiled and allocated at the first step is not what a user waits for.
    sampling = SamplingParameters(SKIPPED + 1, temperature=0, ignore_eos=True)
    for ids in prompts(vocabulary, 1, arguments.input, seed=1):
        engine.add(Request("warm-up", ids, sampling))
    while engine.has_work:
        checked(engine.step())
    sent = prompts(vocabulary, concurrency, arguments.input, seed=0)
    prefill, step = run(engine, sent, arguments)
    del engine
    gc.collect()
    if arguments.device == "cuda":
        torch.cuda.empty_cache()
    decode = (arguments.output - 1) * step
    total = concurrency * (arguments.input + arguments.output) / (prefill + decode)
    # A user waits for the prompts of the others too.
    others = prefill * (concurrency - 1) / concurrency
    return total, (arguments.output - 1) / (others + decode)


def run(engine, sent, arguments):
    """Return the seconds until all have begun, and those of a step of all together."""
    sampling = SamplingParameters(arguments.output, temperature=0, ignore_eos=True)
    begun = set()
    synchronize()
    started = time.perf_counter()
    for index, ids in enumerate(sent):
        engine.add(Request(str(index), ids, sampling))
    while len(begun) < len(sent):
        begun.update(event.request_id for event in checked(engine.step()))
    prefill = time.perf_counter() - started
    times = []
    for _ in range(SKIPPED + arguments.steps + 1):
        if len(checked(engine.step())) != len(sent):
            raise SystemExit("a request ended before its time: give a longer --output")
        times.append(time.perf_counter())
    return prefill, (times[-1] - times[SKIPPED]) / arguments.steps


def prompts(vocabulary, count, length, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (count, length), generator=generator).tolist()


def show(found, arguments):
    print(f"\n{arguments.input} in, {arguments.output} out\n")
    print("| | streams | tok/s/GPU | tok/s/user | of all off | of all off at its pace |")
    print("|---|---:|---:|---:|---:|---:|")
    middle = {
        key: [statistics.median(values) for values in zip(*points, strict=True)]
        for key, points in found.items()
    }
    for (title, streams), (total, _) in sorted(middle.items(), key=lambda item: item[0][1]):
        shown = [spread(values) for values in zip(*found[title, streams], strict=True)]
        base = middle.get(("all off", streams))
        if base is None:
            shown += ["-", "-"]
        else:
            # The best operating point that is at least as fast for a user as all off is here.
            points = [of for (name, _), of in middle.items() if name == title and of[1] >= base[1]]
            best = max((point[0] for point in points), default=None)
            shown += [f"{total / base[0]:.2f}", f"{best / base[0]:.1f}" if best else "-"]
        print(f"| {title} | {streams} | {' | '.join(shown)} |")


def spread(values):
    return f"{statistics.median(values):,.1f} [{min(values):,.1f}, {max(values):,.1f}]"


if __name__ == "__main__":
    main()
