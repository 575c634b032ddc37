"""Gated DeltaNet's kernels on a GPU beside the same in torch: time, bandwidth and error.

    python benchmarks/gated_delta.py
    python benchmarks/gated_delta.py --repeats 10 --calls 3

Steps are calls in one CUDA graph, each on states of its own, so many that together they exceed
the GPU's cache several times over; torch's steps are in a graph too. Sequences are calls in a row
without a graph, as the engine makes them. Both sides split, normalise and gate. A cell is the
median [lowest, highest] over repeats of the time of one call. Bytes are those of a step's states,
read and written, and of a convolution's inputs and outputs. Errors are |got - exact| / |exact|
against float64, token by token, of outputs and of new states; both sides start from the same
rounded inputs.
"""

import argparse
import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import causal_conv, gated_delta
from upcurve.engine.kernels.causal_conv_kernels import (
    convolve_sequence_in_place,
    convolve_step_in_place,
)
from upcurve.engine.kernels.gated_delta_scan import scan
from upcurve.engine.kernels.gated_delta_step import step_in_place
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

DEVICE = "cuda"
KEY_HEADS, HEADS, KEY_DIM, VALUE_DIM, KERNEL = 16, 32, 128, 128, 4
BATCHES = (1, 16, 64, 256)
LENGTHS = (2048, 8192)
STATES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COLD_BYTES = 2**29


@dataclass
class Tokens:
    """A layer's projections of T tokens in bfloat16 as rows of one product, and its gates."""

    qkv: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    a_log: torch.Tensor
    dt_bias: torch.Tensor

    @classmethod
    def of(cls, length):
        """Draw them at random, with the decays that the architecture starts from."""
        width = channels()
        rows = torch.randn(length, width + 2 * HEADS, device=DEVICE, dtype=torch.bfloat16)
        step = torch.empty(HEADS, device=DEVICE).uniform_(-6.9, -2.3).exp()
        return cls(
            *rows.split([width, HEADS, HEADS], -1),
            torch.empty(HEADS, device=DEVICE).uniform_(1, 16).log(),
            step.expm1().log(),
        )

    def kernel_inputs(self):
        """Return what the kernels take before the state."""
        return self.qkv, self.a, self.b, self.a_log, self.dt_bias

    def rule_inputs(self, dtype):
        """Return q, k, v, g and beta of the rule in a dtype."""
        keys = KEY_HEADS * KEY_DIM
        q, k, v = self.qkv.to(dtype).split([keys, keys, HEADS * VALUE_DIM], -1)
        q, k = (
            (x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)).repeat_interleave(
                HEADS // KEY_HEADS, 1
            )
            for x in (q.reshape(-1, KEY_HEADS, KEY_DIM), k.reshape(-1, KEY_HEADS, KEY_DIM))
        )
        g = -self.a_log.to(dtype).exp() * F.softplus(self.a.to(dtype) + self.dt_bias.to(dtype))
        v = v.reshape(-1, HEADS, VALUE_DIM)
        return q * KEY_DIM**-0.5, k, v, g, torch.sigmoid(self.b.to(dtype))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--calls", type=int, default=5, help="calls over a sequence per repeat")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}")
    print(f"{KEY_HEADS} key heads of {KEY_DIM}, {HEADS} value heads of {VALUE_DIM}, inputs bf16\n")
    print("| what | tokens | state | us | GB/s | torch us | ratio | error | torch's error |")
    print("|---|---:|---|---:|---:|---:|---:|---|---|")
    for batch in BATCHES:
        for kind, dtype in STATES.items():
            show("delta step", batch, kind, *delta_step(batch, dtype, arguments.repeats))
    for batch in BATCHES:
        show("convolution step", batch, "bf16", *convolution_step(batch, arguments.repeats))
    for length in LENGTHS:
        show("delta scan", length, "fp32", *delta_scan(length, arguments))
    for length in LENGTHS:
        show("convolution", length, "bf16", *convolution(length, arguments))


def show(what, tokens, state, size, times, others, error, other_error):
    """Print a row; a size of None has no bandwidth worth a look."""
    middle = statistics.median(times)
    rate = f"{size / middle / 1e3:.0f}" if size else ""
    print(
        f"| {what} | {tokens} | {state} | {spread(times)} | {rate} | {spread(others)} "
        f"| {statistics.median(others) / middle:.1f} | {error} | {other_error} |",
        flush=True,
    )


def spread(times):
    return f"{statistics.median(times):.1f} [{min(times):.1f}, {max(times):.1f}]"


def delta_step(batch, dtype, repeats):
    """Measure one token of each of some sequences."""
    tokens = Tokens.of(batch)
    size = 2 * batch * HEADS * KEY_DIM * VALUE_DIM * dtype.itemsize
    calls = cold_calls(size)
    states = torch.randn(calls * batch, HEADS, KEY_DIM, VALUE_DIM, device=DEVICE).to(dtype)
    slots = torch.randperm(calls * batch, device=DEVICE).view(calls, batch)

    def ours(states, slots):
        return step_in_place(*tokens.kernel_inputs(), states, slots, key_heads=KEY_HEADS)

    def torchs(states, slots):
        chosen = states.index_select(0, slots).float()
        out = gated_delta.step(*tokens.rule_inputs(torch.float32), chosen)
        states.index_copy_(0, slots, chosen.to(dtype))
        return out

    exact = states[slots[0]].double()
    wanted = gated_delta.step(*tokens.rule_inputs(torch.float64), exact)
    errors = [step_error(run, states, slots[0], wanted, exact) for run in (ours, torchs)]
    timed = [measure_graph(run, states, slots, repeats) for run in (ours, torchs)]
    return size, *timed, *errors


def convolution_step(batch, repeats):
    """Measure the convolution of one token of each of some sequences."""
    rows = Tokens.of(batch).qkv
    size = 2 * batch * channels() * 2 * KERNEL
    calls = cold_calls(size)
    shape = (calls * batch, KERNEL - 1, channels())
    states = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)
    weight = torch.randn(KERNEL, channels(), device=DEVICE, dtype=torch.bfloat16)
    slots = torch.randperm(calls * batch, device=DEVICE).view(calls, batch)

    def ours(states, slots):
        return convolve_step_in_place(rows, states, slots, weight)

    def torchs(states, slots):
        out, moved = causal_conv.convolve_step(rows, states.index_select(0, slots), weight)
        states.index_copy_(0, slots, moved)
        return out

    wanted, moved = causal_conv.convolve_step(
        rows.double(), states[slots[0]].double(), weight.double()
    )
    errors = [step_error(run, states, slots[0], wanted, moved) for run in (ours, torchs)]
    timed = [measure_graph(run, states, slots, repeats) for run in (ours, torchs)]
    return size, *timed, *errors


def delta_scan(length, arguments):
    """Measure the rule over a sequence."""
    tokens = Tokens.of(length)
    start = torch.randn(HEADS, KEY_DIM, VALUE_DIM, device=DEVICE)
    wanted, exact = gated_delta.recurrence_reference(
        *tokens.rule_inputs(torch.float64), start.double()
    )

    def ours(state):
        return scan(*tokens.kernel_inputs(), state, key_heads=KEY_HEADS), state

    def torchs(state):
        return gated_delta.chunked(*tokens.rule_inputs(torch.float32), state)

    return None, *compare_sequences((ours, torchs), start, wanted, exact, arguments)


def convolution(length, arguments):
    """Measure the convolution of a sequence."""
    rows = Tokens.of(length).qkv
    start = torch.randn(KERNEL - 1, channels(), device=DEVICE, dtype=torch.bfloat16)
    weight = torch.randn(KERNEL, channels(), device=DEVICE, dtype=torch.bfloat16)
    wanted, exact = causal_conv.convolve_sequence(rows.double(), start.double(), weight.double())

    def ours(state):
        return convolve_sequence_in_place(rows, state, weight), state

    def torchs(state):
        return causal_conv.convolve_sequence(rows, state, weight)

    size = 2 * rows.numel() * rows.itemsize
    return size, *compare_sequences((ours, torchs), start, wanted, exact, arguments)


def channels():
    """Return how many channels the convolution has."""
    return 2 * KEY_HEADS * KEY_DIM + HEADS * VALUE_DIM


def cold_calls(size):
    """Return how many calls of so many bytes leave nothing of the first in the cache."""
    return -(-COLD_BYTES // size)


def step_error(run, states, slots, wanted, exact):
    """Run once on a copy of the states and return the errors."""
    states = states.clone()
    out = run(states, slots)
    return describe(out, wanted, states[slots], exact)


def compare_sequences(runs, start, wanted, exact, arguments):
    """Return times and errors of both ways through a sequence."""
    errors = []
    for run in runs:
        out, state = run(start.clone())
        errors.append(describe(out, wanted, state, exact))
    timed = [measure_calls(run, start, arguments.repeats, arguments.calls) for run in runs]
    return *timed, *errors


def describe(out, wanted, state, exact):
    pairs = ((out, wanted), (state, exact))
    return ", ".join(f"{((got - want).norm() / want.norm()).item():.1e}" for got, want in pairs)


def measure_graph(run, states, slots, repeats):
    """Return microseconds of one call, once for every replay of a graph of calls."""
    for each in slots[:2]:
        run(states, each)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for each in slots:
            run(states, each)
    graph.replay()
    return [elapsed(graph.replay) / len(slots) for _ in range(repeats)]


def measure_calls(run, start, repeats, calls):
    """Return microseconds of one call, once for every row of calls."""
    state = start.clone()

    def row():
        for _ in range(calls):
            run(state)

    row()
    return [elapsed(row) / calls for _ in range(repeats)]


def elapsed(action):
    """Return the microseconds that the GPU takes for an action."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


if __name__ == "__main__":
    main()
