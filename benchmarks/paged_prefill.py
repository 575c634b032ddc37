"""Prefill over paged keys and values on a GPU: `attend_chunks_paged` beside the library's ways.

    python benchmarks/paged_prefill.py                  both tables
    python benchmarks/paged_prefill.py --tune           also other ways to launch it, one sequence

A cell is the median [lowest, highest] over replays of a graph of several calls. TFLOP/s count the
two products up to the diagonal. "gathered" is the library on keys and values that already lie in
order; "pages" is what the engine did before: gather, then the library. cuDNN aligns its diagonal at
the start, so it is asked only for prompts without context. The error is the largest absolute one
against float32, of sequences of any lengths. Then norm, rotation and store of a step's rows.
"""

import argparse
import statistics

import torch
import torch.nn.functional as F
from gpu_timing import COPIED_BYTES
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from upcurve.engine.kernels import attention, query_key, rms_norm
from upcurve.engine.kernels.paged_prefill import Launch, attend_chunks_paged
from upcurve.engine.kernels.rotary import rotary_table, rotate
from upcurve.engine.kernels.sequences import Chunk, Sequences
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

HEADS, KV_HEADS, DIM, ROTARY, EPS = 16, 2, 256, 64, 1e-6
CASES = {
    "8,192": [(0, 8192)],
    "8,128 after 8,192": [(8192, 8128)],
    "4 of 2,048": [(0, 2048)] * 4,
    "16 of 100 after 1,000": [(1000, 100)] * 16,
}
DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
TOKENS = (1, 64, 8192)
CANDIDATES = [
    *((128, 64, 8, 2), (128, 64, 8, 3), (128, 32, 8, 3)),
    *((64, 64, 8, 3), (64, 32, 8, 3), (64, 32, 4, 3)),
]  # rows, tile, warps, stages
SHOWN = 4


class Memory:
    """Sequences of (context, new tokens) in shuffled pages."""

    def __init__(self, sizes, dtype, page_size):
        total = sum(-(-sum(size) // page_size) for size in sizes)
        shape = (total, page_size, KV_HEADS, DIM)
        self.keys, self.values = (normal(*shape).to(dtype) for _ in range(2))
        order = torch.randperm(total, dtype=torch.int32, device="cuda")
        width = max(-(-sum(size) // page_size) for size in sizes)
        self.tables = torch.zeros(len(sizes), width, dtype=torch.int32, device="cuda")
        self.chunks, start = [], 0
        for slot, (context, length) in enumerate(sizes):
            used = -(-(context + length) // page_size)
            self.tables[slot, :used], order = order[:used], order[used:]
            self.chunks.append(Chunk(start, length, context, slot))
            start += length
        self.sequences = Sequences.of(tuple(self.chunks), torch.device("cuda"))
        # As in a projection: a query beside its gate.
        self.q = normal(start, HEADS, 2 * DIM)[..., :DIM]
        pairs = sum(n * context + n * (n + 1) // 2 for context, n in sizes)
        self.products = 4 * DIM * HEADS * pairs

    def attend(self, launch=None):
        """Attend with all sequences at once."""
        return attend_chunks_paged(
            self.q, self.keys, self.values, self.tables, self.sequences, launch=launch
        )

    def one_by_one(self, dtype=None):
        """Gather the pages of each sequence, and attend with the library."""
        rows = (
            attention.attend_chunk(
                self.q[chunk.start : chunk.start + chunk.length].to(dtype or self.q.dtype),
                *(self.keys, self.values, self.tables[chunk.slot], chunk.context),
            )
            for chunk in self.chunks
        )
        return torch.cat(list(rows))

    def gathered(self, backend):
        """Return a call of a library's kernel on the first sequence, its keys in order."""
        chunk = self.chunks[0]
        total = chunk.context + chunk.length
        pages = self.tables[0, : -(-total // self.keys.shape[1])]
        k, v = (
            cache[pages].flatten(0, 1)[:total].to(self.q.dtype).transpose(0, 1).unsqueeze(0)
            for cache in (self.keys, self.values)
        )
        q = self.q[: chunk.length].transpose(0, 1).unsqueeze(0)
        mask = causal_lower_right(chunk.length, total) if chunk.context else None

        def call():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
                )

        return call


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tune", action="store_true", help="try other ways to launch the kernel")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}")
    print(f"{HEADS} heads, {KV_HEADS} KV heads, head_dim {DIM}\n")
    print("| KV | tokens | us | TFLOP/s | flash gathered | cuDNN gathered | pages | error |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for kind, dtype in DTYPES.items():
        worst = error(dtype, arguments.page_size)
        for title, sizes in CASES.items():
            prefill(kind, title, Memory(sizes, dtype, arguments.page_size), worst, arguments)
    source = torch.zeros(COPIED_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    copied = measure(lambda: torch.add(source, 1, out=target), arguments.repeats)
    rate = 2 * COPIED_BYTES / statistics.median(copied) / 1e3
    print(f"\ntorch.add(source, 1, out=target) of 1 GiB: {rate:.0f} GB/s\n")
    print("| tokens | norm, rotation, store us | GB/s | torch us | error |")
    print("|---:|---:|---:|---:|---:|")
    for tokens in TOKENS:
        prepare(tokens, arguments)


def prefill(kind, title, memory, worst, arguments):
    """Print the row of a case, and those of other launches."""
    times = measure(memory.attend, arguments.repeats)
    # Of sequences that are alike one is enough to know the library's rate.
    share = memory.products / len(memory.chunks)
    flash = measure(memory.gathered(SDPBackend.FLASH_ATTENTION), arguments.repeats)
    rates = [f"{share / statistics.median(flash) / 1e6:.0f}"]
    if memory.chunks[0].context:
        rates.append("")
    else:
        cudnn = measure(memory.gathered(SDPBackend.CUDNN_ATTENTION), arguments.repeats)
        rates.append(f"{share / statistics.median(cudnn) / 1e6:.0f}")
    pages = statistics.median(measure(memory.one_by_one, arguments.repeats))
    rate = memory.products / statistics.median(times) / 1e6
    print(
        f"| {kind} | {title} | {spread(times)} | {rate:.0f} | {' | '.join(rates)} "
        f"| {memory.products / pages / 1e6:.0f} | {worst:.1e} |",
        flush=True,
    )
    if arguments.tune and len(memory.chunks) == 1:
        tried = []
        for candidate in CANDIDATES:
            launch = Launch(*candidate)
            try:
                found = measure(lambda launch=launch: memory.attend(launch), 3)
            except triton.runtime.errors.OutOfResources:
                continue
            tried.append((statistics.median(found), candidate))
        best = ", ".join(f"{each} {time:.0f} us" for time, each in sorted(tried)[:SHOWN])
        print(f"  rows, tile, warps, stages: {best}", flush=True)


def prepare(tokens, arguments):
    """Print the row of one number of tokens."""
    width = 2 * (HEADS + KV_HEADS) * DIM
    projected = normal(tokens, width)
    weights = [torch.randn(DIM, device="cuda") for _ in range(2)]
    cos, sin = rotary_table(torch.arange(tokens, device="cuda"), ROTARY, 1e7)
    pages = -(-tokens // arguments.page_size)
    places = torch.randperm(pages * arguments.page_size, device="cuda")[:tokens]
    keys, values = (normal(pages, arguments.page_size, KV_HEADS, DIM) for _ in range(2))

    def fused():
        return query_key.prepare(projected, *weights, EPS, cos, sin, keys, values, places)

    def one_by_one(rows=projected, caches=(keys, values)):
        q, k, v = rows.split([2 * HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM], -1)
        q, k = q.view(tokens, HEADS, 2 * DIM)[..., :DIM], k.view(tokens, KV_HEADS, DIM)
        q, k = (
            rotate(rms_norm.head_norm(each, weight, 1.0 + weight, EPS, False), cos, sin)
            for each, weight in ((q, weights[0]), (k, weights[1]))
        )
        attention.store(caches[0], k, places)
        attention.store(caches[1], v.reshape(tokens, KV_HEADS, DIM), places)
        return q

    got = fused()
    wide = [torch.zeros(cache.shape, device="cuda") for cache in (keys, values)]
    worst = (got.float() - one_by_one(projected.float(), wide)).abs().max().item()
    at = [cache.flatten(0, 1)[places].float() for cache in (keys, values, *wide)]
    worst = max(worst, *((at[i] - at[i + 2]).abs().max().item() for i in range(2)))
    times = measure(fused, arguments.repeats)
    size = 2 * tokens * (2 * HEADS + 4 * KV_HEADS) * DIM
    middle = statistics.median(times)
    before = statistics.median(measure(one_by_one, arguments.repeats))
    print(
        f"| {tokens:,} | {spread(times)} | {size / middle / 1e3:.0f} | {before:.1f} "
        f"| {worst:.1e} |",
        flush=True,
    )


def error(dtype, page_size):
    """Return the largest error over sequences of any lengths."""
    memory = Memory([(0, 1), (5, 300), (1000, 17), (0, 129), (64, 64)], dtype, page_size)
    return (memory.attend().float() - memory.one_by_one(torch.float32)).abs().max().item()


def measure(call, repeats):
    """Return microseconds of a call, once for every replay of a graph of at least a millisecond."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    start.record()
    call()
    end.record()
    end.synchronize()
    calls = min(100, 1 + int(2 / start.elapsed_time(end)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    graph.replay()
    times = []
    for _ in range(repeats):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / calls)
    return times


def normal(*size):
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def spread(times):
    return f"{statistics.median(times):.1f} [{min(times):.1f}, {max(times):.1f}]"


if __name__ == "__main__":
    main()
