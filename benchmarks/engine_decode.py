"""Steps of the engine, every switch on against every switch off: decode, prefill, kernels.

    python benchmarks/engine_decode.py                              a small model on the CPU
    python benchmarks/engine_decode.py --device cuda --model 35b    Qwen3.5-35B-A3B's shapes, bf16
    python benchmarks/engine_decode.py --profile 8,prefill          also the kernels of these steps

One process, one set of random weights, one memory: in every round the same running requests take
some steps with the switches on and some with them off, the order alternating. A cell is the median
[lowest, highest] over the rounds of the round's median step, which ends with the tokens on the
host; the ratio is round by round. Peak memory is what torch held at most during the timed steps.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from engine_vs_transformers import FULL_SIZE, spread
from torch.profiler import ProfilerActivity, profile, record_function

from upcurve.engine.execute.engine import DTYPES, Engine
from upcurve.engine.kernels import routing
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.switches import Switches

LEAST_STEPS, MOST_STEPS, TURN_SECONDS = 3, 20, 0.5
PROFILED_STEPS = 3
PARTS = ("_experts", "_gated_delta", "_gated_attention", "_add_norm")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="bf16 on a GPU, else fp32")
    parser.add_argument("--model", default="small", choices=["small", "35b"])
    parser.add_argument("--batch", default="1,8,32,64")
    parser.add_argument("--prompt", type=int, default=512, help="tokens before the decode steps")
    parser.add_argument("--prefill", type=int, default=8192, help="tokens of a prefilled prompt")
    parser.add_argument("--step-tokens", default="2048,8192", help="most tokens of a prefill step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--profile", default="", help="what to profile: batches of a decode step, prefill"
    )
    arguments = parser.parse_args()
    dtype = arguments.dtype or ("bf16" if arguments.device == "cuda" else "fp32")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {dtype}, {arguments}")
    models = load(arguments, DTYPES[dtype])
    decode_table(models, arguments)
    prefill_table(models, arguments)


def load(arguments, dtype):
    config = small_config(**(FULL_SIZE if arguments.model == "35b" else {}))
    config["max_position_embeddings"] = 32768
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        on = load_model(
            Path(folder),
            device=torch.device(arguments.device),
            dtype=dtype,
            switches=Switches(),
            load_format="dummy",
        )
    synchronize()
    size = on.weights.parameter_bytes()
    print(f"{size / 2**30:.2f} GiB of parameters, ready in {time.perf_counter() - started:.1f} s")
    return {"on": on, "off": Model(on.shapes, on.weights, Switches.without("all"), dtype)}


def make_engine(models, arguments, *, context, requests, step_tokens):
    return Engine(
        models["on"],
        device=torch.device(arguments.device),
        context_length=context,
        max_running_requests=requests,
        max_batch_tokens=step_tokens,
        seed=0,
    )


def start(engine, name, count, prompt, output):
    generator = torch.Generator().manual_seed(count)
    vocabulary = engine.model.shapes.vocab_size
    sampling = SamplingParameters(output, temperature=0, ignore_eos=True)
    for index, row in enumerate(
        torch.randint(3, vocabulary, (count, prompt), generator=generator).tolist()
    ):
        engine.add(Request(f"{name}-{index}", row, sampling))


def timed_step(engine):
    synchronize()
    started = time.perf_counter()
    tokens = checked_step(engine)
    synchronize()
    return time.perf_counter() - started, tokens


def checked_step(engine):
    """Take one step; return how many tokens it gave."""
    events = engine.step()
    for event in events:
        if event.finish == "failed":
            raise SystemExit(event.error)
    return len(events)


def rounds_of(models, engine, turn, rounds, peaks):
    """Take a turn with each model in every round; return its figures by the model's name."""
    found = defaultdict(list)
    for index in range(rounds):
        for name in ("on", "off") if index % 2 else ("off", "on"):
            engine.model = models[name]
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            found[name].append(turn())
            if torch.cuda.is_available():
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() / 2**30)
    return found


def decode_table(models, arguments):
    batches = [int(each) for each in arguments.batch.split(",")]
    output = MOST_STEPS * 2 * arguments.rounds + 40
    engine = make_engine(
        models,
        arguments,
        context=arguments.prompt + output,
        requests=max(batches),
        step_tokens=2048,
    )
    print(engine.budget.describe())
    heads = ("batch", "on, ms a step", "off, ms a step", "off / on", "experts hit by a layer")
    table = [(*heads, "peak GiB on, off")]
    profiles = []
    for batch in batches:
        engine.model = models["on"]
        peaks = Counter()
        start(engine, f"decode-{batch}", batch, arguments.prompt, output)
        # A step of decodes alone gives each request one token and admits nobody.
        while engine.waiting:
            checked_step(engine)
        while checked_step(engine) < batch:
            pass
        for model in models.values():
            engine.model = model
            checked_step(engine)
        hit = experts_hit(models["on"], engine)

        def turn(engine=engine, batch=batch):
            seconds = []
            while len(seconds) < LEAST_STEPS or (
                len(seconds) < MOST_STEPS and sum(seconds) < TURN_SECONDS
            ):
                took, tokens = timed_step(engine)
                if tokens != batch:
                    raise SystemExit(f"{tokens} tokens of a step over {batch} requests")
                seconds.append(took)
            return 1000 * statistics.median(seconds)

        found = rounds_of(models, engine, turn, arguments.rounds, peaks)
        table.append(
            (batch, *compared(found, "off", "on"), hit, f"{peaks['on']:.1f}, {peaks['off']:.1f}")
        )
        print(table[-1], flush=True)
        engine.model = models["on"]
        if str(batch) in arguments.profile.split(","):
            profiles.append(
                profiled(
                    engine,
                    f"A decode step at batch {batch}",
                    statistics.median(found["on"]),
                    partial(timed_step, engine),
                    PROFILED_STEPS,
                )
            )
        engine.abort_all()
    print("\n\n".join(profiles))
    show(f"Decode, {arguments.prompt} tokens of context", table)


def prefill_table(models, arguments):
    table = [("step of", "on, tok/s", "off, tok/s", "on / off", "peak GiB on, off")]
    length = arguments.prefill
    steps = [int(each) for each in arguments.step_tokens.split(",")]
    for step_tokens in steps:
        engine = make_engine(
            models, arguments, context=length + 1, requests=1, step_tokens=step_tokens
        )
        peaks = Counter()

        def turn(engine=engine, length=length):
            start(engine, "prefill", 1, length, 1)
            synchronize()
            started = time.perf_counter()
            while engine.has_work:
                checked_step(engine)
            return length / (time.perf_counter() - started)

        first = min(length, step_tokens)
        for _ in range(2):
            seconds = first / turn(length=first)
        if "prefill" in arguments.profile.split(",") and step_tokens == steps[0]:
            title = f"A prefill step of {first} tokens"
            print(profiled(engine, title, 1000 * seconds, partial(turn, length=first), 1))
        found = rounds_of(models, engine, turn, arguments.rounds, peaks)
        table.append(
            (step_tokens, *compared(found, "on", "off"), f"{peaks['on']:.1f}, {peaks['off']:.1f}")
        )
        print(table[-1], flush=True)
    show(f"Prefill of one prompt of {length} tokens", table)


def compared(found, above, below):
    ratios = [a / b for a, b in zip(found[above], found[below], strict=True)]
    form = ",.0f" if min(found["on"]) > 1000 else ".1f"
    return spread(found["on"], form), spread(found["off"], form), spread(ratios, ".2f")


def experts_hit(model, engine):
    """Take one step; return how many of the experts each layer's tokens went to."""
    chosen, original = [], routing.route_fused

    def recording(logits, top_k):
        mixing, ids = original(logits, top_k)
        chosen.append(ids)
        return mixing, ids

    engine.model, routing.route_fused = model, recording
    try:
        checked_step(engine)
    finally:
        routing.route_fused = original
    counts = [len(torch.unique(ids)) for ids in chosen]
    return f"{spread(counts, '.0f')} of {model.shapes.num_experts}"


def profiled(engine, title, milliseconds, work, repeats):
    """Return where the time goes of a piece of work, the mean over repeats of it."""
    for part in PARTS:
        setattr(engine.model, part, named(part, getattr(engine.model, part)))
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities):
        work()
    with profile(activities=activities) as profiler:
        for _ in range(repeats):
            work()
    for part in PARTS:
        delattr(engine.model, part)
    kernels, calls, parts = defaultdict(list), Counter(), Counter()
    for event in profiler.events():
        took = event.time_range.elapsed_us() / repeats
        if on_host(event) and event.name in PARTS:
            parts[event.name] += took
        elif on_host(event) and event.name.startswith(("cuda", "cuLaunch")):
            calls[event.name] += 1 / repeats
        elif not on_host(event) and event.name not in PARTS:
            kernels[event.name].append(took)
    busy = sum(map(sum, kernels.values())) / 1000
    count = sum(map(len, kernels.values())) / repeats
    lines = [
        f"{title}: {milliseconds:.1f} ms; on the device {count:.0f} kernels and copies, "
        f"busy {busy:.2f} ms ({busy / milliseconds:.0%})",
        "calls: " + ", ".join(f"{name} {each:.0f}" for name, each in calls.most_common(10)),
        "host ms under the profiler: "
        + ", ".join(f"{name} {each / 1000:.1f}" for name, each in parts.most_common()),
        "device ms and launches: "
        + ", ".join(
            f"{part} {took / repeats / 1000:.2f} {launches / repeats:.0f}"
            for part, (took, launches) in by_part(profiler).items()
        ),
        "device us  count  kernel",
    ]
    for name, each in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:16]:
        lines.append(f"{sum(each):9.0f}  {len(each) / repeats:5.0f}  {name[:110]}")
    lines.append("  host us  count  operation (its own time)")
    averages = sorted(profiler.key_averages(), key=lambda each: -each.self_cpu_time_total)
    lines += [
        f"{each.self_cpu_time_total / repeats:9.0f}  {each.count / repeats:5.0f}  {each.key[:60]}"
        for each in averages[:12]
    ]
    return "\n".join(lines)


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
    def inside(*arguments):
        with record_function(name):
            return function(*arguments)

    return inside


def show(title, table):
    print(f"\n{title}\n\n| " + " | ".join(table[0]) + " |\n|" + "---:|" * len(table[0]))
    for row in table[1:]:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
