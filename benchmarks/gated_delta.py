"""The gated delta rule over prompts on a GPU beside flash-linear-attention's: time and error.

    python benchmarks/gated_delta.py            the table
    python benchmarks/gated_delta.py --tune     launch parameters of both kernels, fastest first

Graph replay of ten calls; a cell is the median [lowest, highest] over replays of the time of one.
Inputs are what a convolution has written just before: short ones may lie in the GPU's cache. Our
call splits, normalises and gates; flash-linear-attention (where it is installed, for --peer) gets
contiguous q, k and v, normalises them, and gets its gates computed. Both start from states. Errors
are |got - exact| / |exact| of outputs and of new states against `gated_delta.chunked` in float64,
from the same rounded inputs. The time of the second kernel is what it adds to the first.
"""

import argparse
import itertools
import statistics
from dataclasses import replace
from unittest.mock import MagicMock, patch

import torch
import torch.nn.functional as F
from gpu_timing import compile_in_time, line

from upcurve.engine.kernels import gated_delta, gated_delta_scan
from upcurve.engine.kernels.gated_delta_scan import ScanLaunch, scan
from upcurve.engine.kernels.sequences import Chunk, Sequences
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

try:
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
except ImportError as error:
    chunk_gated_delta_rule, MISSING = None, str(error)

DIM, CALLS = 128, 10
HEADS = ("16/32", "4/16")
LENGTHS = {"8192": [8192], "8 x 1024": [1024] * 8}
PREPARE = ((4, 128), (4, 168), (4, 255), (8, 128), (8, 255))
"""Warps and registers."""
SCAN = [
    *itertools.product((16, 32), (4,), (2, 3, 4)),
    *itertools.product((32, 64), (8,), (2, 3)),
    *itertools.product((64,), (4,), (2, 3)),
]
"""Columns, warps and stages."""
SHOWN = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", default=",".join(HEADS), help="key/value heads")
    parser.add_argument("--peer", default="16/32", help="heads that both are measured with")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tune", action="store_true", help="try launch parameters, of 16/32")
    arguments = parser.parse_args()
    if HAS_TRITON and not INTERPRETED and not arguments.tune:
        compile_in_time(launches, "sm_90")
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}")
    if arguments.tune:
        for title in ("8192", "8 x 1024"):
            tune(title, Case(16, 32, LENGTHS[title]))
        return
    if chunk_gated_delta_rule is None:
        print(f"flash-linear-attention cannot be imported: {MISSING}")
    print(f"heads of {DIM}, inputs bf16, states fp32\n")
    print("| heads | tokens | us | first kernel | second | errors |")
    print("|---|---|---:|---:|---:|---|")
    found = {}
    for heads, (title, lengths) in itertools.product(arguments.heads.split(","), LENGTHS.items()):
        case = Case(*map(int, heads.split("/")), lengths)
        errors = describe(case.ours(), case.exact())
        times, first = measure(case.ours, arguments.repeats), case.first(arguments.repeats)
        found[heads, title] = statistics.median(times)
        rest = found[heads, title] - first
        print(
            f"| {heads} | {title} | {spread(times)} | {first:.1f} | {rest:.1f} | {errors} |",
            flush=True,
        )
    if chunk_gated_delta_rule is None:
        return
    # Last, because the peer compiles and tunes its kernels at its first call.
    print("\n| heads | tokens | FLA us | ratio | its errors |\n|---|---|---:|---:|---|")
    for (heads, title), ours in found.items():
        if heads not in arguments.peer.split(","):
            continue
        case = Case(*map(int, heads.split("/")), LENGTHS[title])
        try:
            errors, others = (
                describe(case.peer(), case.exact()),
                measure(case.peer, arguments.repeats),
            )
        except Exception as error:  # whatever the peer says is told
            print(f"| {heads} | {title} | {line(error)} |", flush=True)
            continue
        ratio = statistics.median(others) / ours
        print(f"| {heads} | {title} | {spread(others)} | {ratio:.2f} | {errors} |", flush=True)


def launches():
    for heads, lengths in itertools.product(HEADS, LENGTHS.values()):
        Case(*map(int, heads.split("/")), lengths).ours()


class Case:
    """Projected rows, the gates and the states of some sequences."""

    def __init__(self, key_heads, heads, lengths):
        self.key_heads, self.heads, self.lengths = key_heads, heads, lengths
        length, width = sum(lengths), (2 * key_heads + heads) * DIM
        self.qkv = torch.randn(length, width, device="cuda", dtype=torch.bfloat16)
        gates = torch.randn(length, 2 * heads, device="cuda", dtype=torch.bfloat16)
        self.a, self.b = gates.split(heads, -1)
        # The decays that the architecture starts from.
        self.a_log = (1 + 15 * torch.rand(heads, device="cuda")).log()
        self.dt_bias = (4.6 * torch.rand(heads, device="cuda") - 6.9).exp().expm1().log()
        self.start = torch.randn(len(lengths), heads, DIM, DIM, device="cuda") / 10
        self.states = self.start.clone()
        starts = [sum(lengths[:index]) for index in range(len(lengths))]
        self.sequences = Sequences.of(
            tuple(Chunk(s, n, 1, i) for i, (s, n) in enumerate(zip(starts, lengths, strict=True))),
            self.qkv.device,
        )
        sizes = [key_heads * DIM, key_heads * DIM, heads * DIM]
        q, k, v, beta = (
            x.clone(memory_format=torch.contiguous_format).view(1, length, *shape)
            for x, shape in zip(
                (*self.qkv.split(sizes, -1), torch.sigmoid(self.b.float())),
                ((key_heads, DIM), (key_heads, DIM), (heads, DIM), (heads,)),
                strict=True,
            )
        )
        g = -self.a_log.exp() * F.softplus(self.a.float() + self.dt_bias)
        self.inputs = q, k, v, g.unsqueeze(0), beta
        ends = torch.tensor([*starts, length])
        self.of_several = len(lengths) > 1 and {
            "cu_seqlens": ends.to("cuda"),
            "cu_seqlens_cpu": ends,
        }

    def ours(self, launch=None):
        """Run over all sequences; their states move on."""
        out = scan(
            *(self.qkv, self.a, self.b, self.a_log, self.dt_bias, self.states),
            key_heads=self.key_heads,
            sequences=self.sequences,
            launch=launch,
        )
        return out, self.states

    def first(self, repeats, launch=None):
        """Return microseconds of the first kernel alone."""
        with patch.object(gated_delta_scan, "advance", MagicMock()):
            return statistics.median(measure(lambda: self.ours(launch), repeats))

    def peer(self):
        """Run the peer over all sequences."""
        out, states = chunk_gated_delta_rule(
            *self.inputs,
            initial_state=self.start,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
            **(self.of_several or {}),
        )
        return out[0], states

    def exact(self):
        """Return outputs and new states in float64."""
        parts, start = [], 0
        for length, state in zip(self.lengths, self.start, strict=True):
            q, k, v = (x[0, start : start + length].double() for x in self.inputs[:3])
            rows = slice(start, start + length)
            start += length
            q, k = (
                (x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)).repeat_interleave(
                    self.heads // self.key_heads, 1
                )
                for x in (q, k)
            )
            x = self.a[rows].double() + self.dt_bias.double()
            g = -self.a_log.double().exp() * F.softplus(x)
            beta = torch.sigmoid(self.b[rows].double())
            parts.append(gated_delta.chunked(q * DIM**-0.5, k, v, g, beta, state.double()))
        outs, states = zip(*parts, strict=True)
        return torch.cat(outs), torch.stack(states)


def tune(title, case):
    """Print the fastest parameters of each kernel; those that do not fit are left out."""
    rule = ScanLaunch.of(case.states, len(case.lengths), case.qkv.dtype)
    first = {}
    for warps, registers in PREPARE:
        launch = replace(rule, prepare_warps=warps, prepare_registers=registers)
        first[warps, registers] = case.first(3, launch)
    found = sorted(first, key=first.get)
    told = ", ".join(f"{each} {first[each]:.1f}" for each in found)
    print(f"{title}: first kernel (warps, registers) us: {told}", flush=True)
    best = replace(rule, prepare_warps=found[0][0], prepare_registers=found[0][1])
    second = {}
    for width, warps, stages in SCAN:
        launch = replace(best, width=width, warps=warps, stages=stages)
        try:
            times = measure(lambda launch=launch: case.ours(launch), 3)
        except triton.runtime.errors.OutOfResources:
            continue
        second[width, warps, stages] = statistics.median(times) - first[found[0]]
    told = ", ".join(f"{x} {second[x]:.1f}" for x in sorted(second, key=second.get)[:SHOWN])
    print(f"{title}: second (columns, warps, stages) us: {told}; rule: {rule}", flush=True)


def describe(got, wanted):
    return ", ".join(
        f"{((x.double() - exact).norm() / exact.norm()).item():.1e}"
        for x, exact in zip(got, wanted, strict=True)
    )


def measure(run, repeats):
    """Return microseconds of one call, once for every replay of a graph of calls."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            run()
    graph.replay()
    return [elapsed(graph.replay) / CALLS for _ in range(repeats)]


def elapsed(action):
    """Return the microseconds that the GPU takes for an action."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def spread(times):
    return f"{statistics.median(times):.1f} [{min(times):.1f}, {max(times):.1f}]"


if __name__ == "__main__":
    main()
