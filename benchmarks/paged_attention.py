"""Paged decode attention on a GPU: time, bandwidth and error of `attend_step_paged`.

    python benchmarks/paged_attention.py                  the table, as the engine launches it
    python benchmarks/paged_attention.py --sweep          also the fastest other ways to launch it

A graph holds as many calls as it takes for their keys and values to exceed the GPU's cache many
times over, each call on its own, as the layers of a model. A cell is the median [lowest, highest]
over replays of the time of one call, both kernels. Bytes are those of the keys and values within
the lengths. The error is the largest absolute one against float64, of queries, keys and values
of unit variance and any lengths.
"""

import argparse
import itertools
import statistics
from dataclasses import dataclass, replace

import torch

from upcurve.engine.kernels.attention import attend_step
from upcurve.engine.kernels.paged_attention import Launch, attend_step_paged
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

HEADS, KV_HEADS, HEAD_DIM = 16, 2, 256
BATCHES = (1, 16, 64)
DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
CAPACITY = 8192
COLD_BYTES, MOST_CALLS = 2**29, 512
CANDIDATES = tuple(
    itertools.product((0.5, 1, 2), (32, 64, 128), (4, 8), (2, 3, 5))
)  # times as many splits; tile; warps; stages
SHOWN = 4


@dataclass
class Memory:
    """Sequences in shuffled pages, one query each, `calls` times over."""

    q: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    tables: torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, lengths, dtype, page_size, calls):
        """Fill memory at random."""
        batch, width = len(lengths), CAPACITY // page_size
        pages = sum(-(-length // page_size) for length in lengths)
        shape = (calls, pages, page_size, KV_HEADS, HEAD_DIM)
        keys, values = (
            torch.randn(shape, device="cuda", dtype=torch.bfloat16).to(dtype) for _ in range(2)
        )
        tables = torch.zeros(batch, width, dtype=torch.int32, device="cuda")
        order = torch.randperm(pages, dtype=torch.int32, device="cuda")
        start = 0
        for row, length in enumerate(lengths):
            used = -(-length // page_size)
            tables[row, :used] = order[start : start + used]
            start += used
        return cls(
            torch.randn(batch, HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16),
            keys,
            values,
            tables,
            torch.arange(batch, device="cuda"),
            torch.tensor(lengths, dtype=torch.int32, device="cuda"),
        )

    def attend(self, call, launch=None):
        """Attend over the memory of one call."""
        keys, values = self.keys[call], self.values[call]
        return attend_step_paged(
            self.q, keys, values, self.tables, self.slots, self.lengths, launch=launch
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--sweep", action="store_true", help="try other ways to launch the kernel")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}")
    print(f"a copy of 2 GiB: {copy_bandwidth(arguments.repeats):.0f} GB/s, read and written")
    print(f"{HEADS} heads, {KV_HEADS} KV heads, head_dim {HEAD_DIM}, capacity {CAPACITY}\n")
    print("| KV | batch | context | splits, tile, warps, stages | us | GB/s | error |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for kind, dtype in DTYPES.items():
        worst = error(dtype, arguments.page_size)
        for batch, context in itertools.product(BATCHES, contexts()):
            lengths = contexts()[context](batch)
            row = 2 * KV_HEADS * HEAD_DIM * dtype.itemsize
            size = sum(lengths) * row
            calls = min(MOST_CALLS, -(-COLD_BYTES // size))
            memory = Memory.of(lengths, dtype, arguments.page_size, calls)
            chosen = Launch.of(memory.q, memory.keys[0], memory.tables)
            timed = [(measure(memory, calls, chosen, arguments.repeats), chosen)]
            if arguments.sweep:
                timed += sweep(memory, calls, chosen, arguments.repeats)
            for times, launch in timed:
                middle = statistics.median(times)
                how = f"{launch.splits}, {launch.tile}, {launch.warps}, {launch.stages}"
                print(
                    f"| {kind} | {batch} | {context} | {how} "
                    f"| {middle:.1f} [{min(times):.1f}, {max(times):.1f}] "
                    f"| {size / middle / 1e3:.0f} | {worst:.1e} |",
                    flush=True,
                )


def contexts():
    """Lengths of a batch by name; the last are spread evenly up to the capacity."""
    return {
        "1k": lambda batch: [1024] * batch,
        "8k": lambda batch: [8192] * batch,
        "to 8k": lambda batch: [8192 * (row + 1) // batch for row in range(batch)],
    }


def measure(memory, calls, launch, repeats):
    """Return microseconds of one call, once for every replay."""
    for call in range(min(calls, 2)):
        memory.attend(call, launch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in range(calls):
            memory.attend(call, launch)
    graph.replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / calls)
    return times


def sweep(memory, calls, chosen, repeats):
    """Return the fastest other launches, fastest first; those that do not fit are left out."""
    timed = []
    for factor, tile, warps, stages in CANDIDATES:
        splits = max(1, int(chosen.splits * factor))
        launch = replace(chosen, splits=splits, tile=tile, warps=warps, stages=stages)
        if launch == chosen:
            continue
        try:
            timed.append((measure(memory, calls, launch, repeats), launch))
        except triton.runtime.errors.OutOfResources:
            continue
    return sorted(timed, key=lambda each: statistics.median(each[0]))[:SHOWN]


def error(dtype, page_size):
    lengths = [1, 15, 16, 17, 100, 1023, 1024, 2000]
    memory = Memory.of(lengths, dtype, page_size, 1)
    keys, values = memory.keys[0].double(), memory.values[0].double()
    wanted = attend_step(memory.q.double(), keys, values, memory.tables.long(), memory.lengths)
    return (memory.attend(0).double() - wanted).abs().max().item()


def copy_bandwidth(repeats):
    """Return GB/s of a plain copy: what memory gives to a kernel that only moves bytes."""
    source = torch.zeros(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return 2 * source.nbytes / statistics.median(times) / 1e6


if __name__ == "__main__":
    main()
