"""Where the time of a step goes: kernels on the device, calls and operations on the host.

    python benchmarks/step_profile.py --batch 1,64              decode steps, as captured graphs
    python benchmarks/step_profile.py --eager --batch 64        without graphs: parts can be told
    python benchmarks/step_profile.py --prefill 2048,8192 --quantization fp8
    python benchmarks/step_profile.py --tp 2 --quantization fp8 --batch 4       one rank of two
    python benchmarks/step_profile.py --device cpu --model small --batch 4 --prefill 256

With --tp one rank is profiled by itself: what it launches, without waiting for the others.
Under torch's profiler, which slows the host: times of the host are shares, not absolute ones.
"""

import argparse
import os
from collections import Counter, defaultdict

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from one_gpu import load
from one_gpu_turns import Decoding, checked, new_engine, synchronize
from torch.profiler import ProfilerActivity, profile, record_function

from upcurve.engine.schedule.request import Request, SamplingParameters

PARTS = ("_all_experts", "_gated_delta", "_gated_attention", "_add_norm")
STEPS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--quantization", default="none", choices=["none", "fp8"])
    parser.add_argument("--batch", default="", help="decode steps of these batches")
    parser.add_argument("--prefill", default="", help="prefill steps of so many tokens")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--tp", type=int, default=1, help="ranks, of which the first is here")
    parser.add_argument("--eager", action="store_true", help="no graphs")
    arguments = parser.parse_args()
    off = ":cuda_graphs" if arguments.eager else ""
    arguments.variant = [arguments.quantization + off]
    arguments.no_transformers, arguments.rounds, arguments.steps = True, 1, STEPS
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {arguments}", flush=True)
    (model,) = load(arguments).values()
    for batch in numbers(arguments.batch):
        decoding = Decoding(model, arguments, batch)
        decoding.turn()
        show(f"A decode step at batch {batch}", model, decoding.turn, STEPS)
    for tokens in numbers(arguments.prefill):
        show(f"A prefill step of {tokens} tokens", model, prefill(model, arguments, tokens), 1)


def numbers(text):
    return [int(each) for each in text.split(",") if each]


def prefill(model, arguments, tokens):
    """Return a function that prefills one prompt in one step."""
    engine = new_engine(
        model, arguments, context=tokens + 1, requests=1, tokens=tokens, prepare=False
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.shapes.vocab_size, (tokens,), generator=generator).tolist()

    def turn():
        engine.add(Request("prefill", ids, SamplingParameters(1, temperature=0, ignore_eos=True)))
        while engine.has_work:
            checked(engine.step())

    for _ in range(2):
        turn()
    return turn


def show(title, model, work, steps):
    for part in PARTS:
        setattr(model, part, named(part, getattr(model, part)))
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities):
        work()
    with profile(activities=activities) as profiler:
        work()
        synchronize()
    for part in PARTS:
        delattr(model, part)
    print(f"\n{title}\n" + "\n".join(lines(profiler, steps)), flush=True)


def lines(profiler, steps):
    kernels, calls = defaultdict(list), Counter()
    for event in profiler.events():
        took = event.time_range.elapsed_us() / steps
        if on_host(event) and event.name.startswith(("cuda", "cuLaunch")):
            calls[event.name] += 1 / steps
        elif not on_host(event) and event.name not in PARTS:
            kernels[event.name].append(took)
    busy = sum(map(sum, kernels.values())) / 1000
    count = sum(map(len, kernels.values())) / steps
    yield f"on the device {count:.0f} kernels and copies, busy {busy:.2f} ms"
    yield "calls: " + ", ".join(f"{name} {each:.0f}" for name, each in calls.most_common(8))
    parts = by_part(profiler)
    if sum(launches for _, launches in parts.values()):
        yield "device ms and launches: " + ", ".join(
            f"{part} {took / steps / 1000:.2f} {launches / steps:.0f}"
            for part, (took, launches) in parts.items()
        )
    yield "device us  count  kernel"
    for name, each in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:20]:
        yield f"{sum(each):9.0f}  {len(each) / steps:5.0f}  {name[:110]}"
    yield "  host us  count  operation (its own time)"
    averages = sorted(profiler.key_averages(), key=lambda each: -each.self_cpu_time_total)
    for each in averages[:10]:
        yield f"{each.self_cpu_time_total / steps:9.0f}  {each.count / steps:5.0f}  {each.key[:60]}"


def by_part(profiler):
    """Return device microseconds and launches of each part, by the host range that launched."""
    found = {part: [0.0, 0] for part in (*PARTS, "the rest")}

    def visit(event, part):
        part = event.name if event.name in PARTS else part
        for kernel in event.kernels:
            if kernel.name not in PARTS:
                found[part][0] += kernel.duration
                found[part][1] += 1
        for child in event.cpu_children:
            visit(child, part)

    for event in profiler.events():
        if event.cpu_parent is None and on_host(event):
            visit(event, "the rest")
    return found


def on_host(event):
    return event.device_type == torch.autograd.DeviceType.CPU


def named(name, function):
    def inside(*arguments, **options):
        with record_function(name):
            return function(*arguments, **options)

    return inside


if __name__ == "__main__":
    main()
