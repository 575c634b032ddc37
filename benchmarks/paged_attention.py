"""Paged decode attention with its output gate on a GPU: time, share of copy bandwidth, error.

    python benchmarks/paged_attention.py

Heads are those of Qwen3.5-35B-A3B, contexts fill the capacity, pages are shuffled, and each call
has keys and values of its own. Both kernels count. Bytes are those of keys and values. The error is
against float64, of any lengths. Other ways to launch it: benchmarks/tune.py attention.
"""

import itertools

import torch
from gpu_timing import Run, relative, share, spread

from upcurve.engine.kernels.attention import attend_step
from upcurve.engine.kernels.paged_attention import Launch, attend_step_paged

HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE = 16, 2, 256, 16
BATCHES, CONTEXT = (1, 16, 64), 8192
DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


def main():
    run = Run(__doc__, launches)
    copy = run.copy_bandwidth()
    run.table("KV", "batch", "splits, tile, warps, stages", "us", "of copy", "GB/s", "error")
    context = 64 if run.rehearsed else CONTEXT
    for kind, batch in itertools.product(DTYPES, (1, 2) if run.rehearsed else BATCHES):
        run.row(
            f"{kind} | {batch}",
            lambda at=(DTYPES[kind], batch): measured(run, copy, context, *at),
        )
    run.end()


def launches(run):
    for dtype, batch in itertools.product(DTYPES.values(), BATCHES):
        Memory(run, [CONTEXT] * batch, dtype, 1, CONTEXT).attend(0)


def measured(run, copy, context, dtype, batch):
    """Return the cells of a row."""
    size = 2 * batch * context * KV_HEADS * HEAD_DIM * dtype.itemsize
    calls = run.calls(size)
    memory = Memory(run, [context] * batch, dtype, calls, context)
    launch = Launch.of(memory.q, memory.keys[0], memory.tables)
    error = Memory(
        run, [1 + (context * row + 7) // batch for row in range(batch)], dtype, 1, context
    ).error()
    times = run.measure([lambda call=call: memory.attend(call) for call in range(calls)])
    how = f"{launch.splits}, {launch.tile}, {launch.warps}, {launch.stages}"
    rate = size / sorted(times)[len(times) // 2] / 1e3
    return how, spread(times), share(size / copy, times), f"{rate:.0f}", error


class Memory:
    """Sequences in shuffled pages, one query each, `calls` times over."""

    def __init__(self, run, lengths, dtype, calls, capacity):
        batch, width = len(lengths), capacity // PAGE_SIZE
        pages = batch * width
        shape = (calls, pages, PAGE_SIZE, KV_HEADS, HEAD_DIM)
        self.keys, self.values = (run.normal(*shape).to(dtype) for _ in range(2))
        self.q, self.gate = (run.normal(batch, HEADS, HEAD_DIM) for _ in range(2))
        order = torch.randperm(pages, device=run.device)
        self.tables = order.to(torch.int32).view(batch, width)
        self.slots = torch.arange(batch, device=run.device)
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device=run.device)

    def attend(self, call):
        """Attend over the memory of one call."""
        return attend_step_paged(
            *(self.q, self.keys[call], self.values[call], self.tables, self.slots, self.lengths),
            gate=self.gate,
        )

    def error(self):
        """Return that of one call."""
        keys, values = self.keys[0].double(), self.values[0].double()
        wanted = attend_step(self.q.double(), keys, values, self.tables.long(), self.lengths)
        return relative(self.attend(0), wanted * torch.sigmoid(self.gate.double()))


if __name__ == "__main__":
    main()
