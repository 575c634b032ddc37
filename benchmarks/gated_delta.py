"""Gated DeltaNet's kernels on a GPU beside the same in torch: time, bandwidth and error.

    python benchmarks/gated_delta.py
    python benchmarks/gated_delta.py --repeats 10 --calls 3

Sequences are calls in a row without a graph, as the engine makes them; delta_step.py measures the
decode step. Both sides split, normalise and gate. A cell is the median [lowest, highest] over
repeats of the time of one call. Errors are |got - exact| / |exact| against float64, token by token,
of outputs and of new states; both sides start from the same rounded inputs.
"""

import argparse
import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import gated_delta
from upcurve.engine.kernels.gated_delta_scan import scan
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

DEVICE = "cuda"
KEY_HEADS, HEADS, KEY_DIM, VALUE_DIM = 16, 32, 128, 128
LENGTHS = (2048, 8192)


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
    for length in LENGTHS:
        show("delta scan", length, "fp32", *delta_scan(length, arguments))


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


def channels():
    """Return how many channels the convolution has."""
    return 2 * KEY_HEADS * KEY_DIM + HEADS * VALUE_DIM


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
