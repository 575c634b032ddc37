"""The decode step of a Gated DeltaNet layer on a GPU: time, share of copy bandwidth, error.

    python benchmarks/delta_step.py            the table
    python benchmarks/delta_step.py --tune     columns, warps, registers, fastest first; tiles
                                               of the convolution over sequences

One launch: convolution, gates, the rule, the gated norm and FP8. Heads are those of
Qwen3.5-35B-A3B, and of a quarter of Qwen3.5-397B-A17B. A graph holds as many calls as it takes for
their states to exceed the GPU's cache many times over, each on states of its own. A cell is the
median [lowest, highest] over replays of the time of one call. Bytes are those of the states, read
and written. Errors are |got - exact| / |exact| against float64 of outputs and of new states.
"""

import argparse
import itertools
import statistics

import torch
import torch.nn.functional as F
from gpu_timing import compile_in_time

from upcurve.engine.kernels import causal_conv, gated_delta
from upcurve.engine.kernels.causal_conv_kernels import (
    ConvolutionTile,
    convolve_sequences_in_place,
)
from upcurve.engine.kernels.gated_delta_decode import DecodeLaunch, decode_in_place
from upcurve.engine.kernels.sequences import Chunk, Sequences
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

HEADS = {"35B": (16, 32), "397B/TP4": (4, 16)}
"""Key heads and value heads."""
DIM, KERNEL, EPS = 128, 4, 1e-6
BATCHES = (1, 8, 32, 64, 256)
STATES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LENGTHS = {"8192": [8192], "64 x 128": [128] * 64}
LAUNCHES = ((64, 4, 255), (32, 4, 168), (32, 2, 255), (16, 4, 128), (16, 2, 168), (16, 1, 255))
"""Columns of the state at a time, warps, and registers of a thread at most."""
COLD_BYTES, MOST_CALLS = 2**29, 256


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tune", action="store_true", help="try launch parameters")
    arguments = parser.parse_args()
    if HAS_TRITON and not INTERPRETED:
        compile_in_time(launches, "sm_90")
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    copy = copy_bandwidth(arguments.repeats)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}")
    print(f"a copy of 2 GiB: {copy:.0f} GB/s, read and written\n")
    print("| model | state | batch | us | GB/s | of copy | output's error | state's error |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for model, kind, batch in itertools.product(HEADS, STATES, BATCHES):
        case = Case(*HEADS[model], batch, STATES[kind])
        row = f"| {model} | {kind} | {batch} "
        if arguments.tune:
            if model != "35B" or batch == 256:
                continue
            timed = {each: case.measure(3, DecodeLaunch(*each)) for each in LAUNCHES}
            found = sorted(timed, key=lambda each: statistics.median(timed[each]))
            print(row, *(f"{each}: {spread(timed[each])}" for each in found), sep="| ", flush=True)
            continue
        errors = case.errors()
        times = case.measure(arguments.repeats)
        print(row + f"| {spread(times)} | {share(case.size, times, copy)} | {errors}", flush=True)
    print("\n| convolution | us | GB/s | of copy | error |\n|---|---:|---:|---:|---:|")
    for title, lengths in LENGTHS.items():
        for row in convolution(lengths, copy, arguments):
            print(f"| {title} {row}", flush=True)


def launches():
    for model, kind, batch in itertools.product(HEADS, STATES, BATCHES):
        case = Case(*HEADS[model], batch, STATES[kind])
        case.run(case.slots[0])
        for launch in LAUNCHES:
            case.run(case.slots[0], DecodeLaunch(*launch))


class Case:
    """Projected rows as columns of one product, and states and rings of `calls` calls."""

    def __init__(self, key_heads, heads, batch, dtype):
        self.key_heads, self.heads, self.batch = key_heads, heads, batch
        self.size = 2 * batch * heads * DIM * DIM * dtype.itemsize
        self.calls = max(1, min(MOST_CALLS, -(-COLD_BYTES // self.size)))
        channels, width = (2 * key_heads + heads) * DIM, heads * DIM
        rows = normal(batch, channels + width + 2 * heads)
        self.qkv, self.z, self.b, self.a = rows.split([channels, width, heads, heads], -1)
        total = self.calls * batch
        self.states = torch.randn(total, heads, DIM, DIM, device="cuda").to(dtype)
        self.rings, self.convolution = normal(total, KERNEL, channels), normal(KERNEL, channels)
        # The decays that the architecture starts from.
        self.a_log = (1 + 15 * torch.rand(heads, device="cuda")).log()
        self.dt_bias = (4.6 * torch.rand(heads, device="cuda") - 6.9).exp().expm1().log()
        self.norm = torch.randn(DIM, device="cuda")
        self.slots = torch.randperm(total, device="cuda").view(self.calls, batch)
        self.lengths = torch.randint(2, 9000, (batch,), device="cuda", dtype=torch.int32)
        self.lengths[-1] = 2

    def run(self, slots, launch=None):
        """Compute one token of every sequence."""
        return decode_in_place(
            *(self.qkv, self.z, self.a, self.b),
            convolution=self.convolution,
            a_log=self.a_log,
            dt_bias=self.dt_bias,
            norm=self.norm,
            rings=self.rings,
            states=self.states,
            slots=slots,
            lengths=self.lengths,
            key_heads=self.key_heads,
            eps=EPS,
            quantize=True,
            launch=launch,
        )

    def errors(self):
        """Return those of one call; its states move on."""
        slots = self.slots[0]
        wanted, states, rings = self.exact(slots)
        out, quantized = self.run(slots)
        dequantized = quantized.values.double() * quantized.scale.double().repeat_interleave(DIM, 1)
        assert relative(dequantized, wanted) < 0.04
        assert torch.equal(self.rings[slots].double(), rings)
        return f"{relative(out, wanted):.1e} | {relative(self.states[slots], states):.1e} |"

    def exact(self, slots):
        """Return rows, states and rings in float64."""
        rings, count = self.rings[slots].double(), torch.arange(self.batch, device="cuda")
        rows, weight = self.qkv.double(), self.convolution.double()
        rows = causal_conv.convolve_step(rows, rings, count, self.lengths, weight)
        keys = self.key_heads * DIM
        q, k, v = (
            part.reshape(self.batch, -1, DIM)
            for part in rows.split([keys, keys, self.heads * DIM], -1)
        )
        q, k = (
            (x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)).repeat_interleave(
                self.heads // self.key_heads, 1
            )
            for x in (q, k)
        )
        g = -self.a_log.double().exp() * F.softplus(self.a.double() + self.dt_bias.double())
        states = self.states[slots].double()
        beta = torch.sigmoid(self.b.double())
        out = gated_delta.step(q * DIM**-0.5, k, v, g, beta, states)
        out = out * torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + EPS) * self.norm.double()
        return (out * F.silu(self.z.double()).view_as(out)).flatten(1), states, rings

    def measure(self, repeats, launch=None):
        """Return microseconds of one call, once for every replay."""
        return measure([lambda s=slots: self.run(s, launch) for slots in self.slots], repeats)


def convolution(lengths, copy, arguments):
    """Yield rows of the convolution over sequences: as launched, or the fastest tiles."""
    channels, total = 8192, sum(lengths)
    x = normal(total, channels + 4096)[:, :channels]
    rings, weight = normal(len(lengths), KERNEL, channels), normal(KERNEL, channels)
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    chunks = tuple(Chunk(s, n, 0, i) for i, (s, n) in enumerate(zip(starts, lengths, strict=True)))
    sequences = Sequences.of(chunks, x.device)
    size = 4 * total * channels

    def work(tile):
        # More than the cache holds is read and written in one call.
        return [lambda: convolve_sequences_in_place(x, rings, sequences, weight, tile=tile)] * 4

    wanted = torch.cat(
        [
            causal_conv.convolve_sequence(part.double(), rings[0].double(), 0, weight.double())
            for part in x.split(lengths)
        ]
    )
    error = relative(work(None)[0](), wanted)
    if not arguments.tune:
        times = measure(work(None), arguments.repeats)
        yield f"| {spread(times)} | {share(size, times, copy)} | {error:.1e} |"
        return
    tiles = itertools.product((8, 16, 32, 64), (64, 128, 256), (2, 4, 8))
    timed = [(measure(work(tile), 3), tile) for tile in itertools.starmap(ConvolutionTile, tiles)]
    for times, tile in sorted(timed, key=lambda each: statistics.median(each[0]))[:3]:
        yield f"| {tile} | {spread(times)} | {share(size, times, copy)} |"


def measure(functions, repeats):
    """Return microseconds of one function, of all in one graph, once for every replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        functions[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for function in functions:
            function()
    graph.replay()
    return [elapsed(graph.replay) / len(functions) for _ in range(repeats)]


def copy_bandwidth(repeats):
    """Return GB/s of a plain copy: what memory gives to a kernel that only moves bytes."""
    source = torch.zeros(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    times = [elapsed(lambda: target.copy_(source)) for _ in range(repeats)]
    return 2 * source.nbytes / statistics.median(times) / 1e3


def elapsed(action):
    """Return the microseconds that the GPU takes for an action."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def normal(*size):
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def relative(got, wanted):
    return ((got.double() - wanted).norm() / wanted.norm()).item()


def spread(times):
    return f"{statistics.median(times):.1f} [{min(times):.1f}, {max(times):.1f}]"


def share(size, times, copy):
    rate = size / statistics.median(times) / 1e3
    return f"{rate:.0f} | {rate / copy:.0%}"


if __name__ == "__main__":
    main()
