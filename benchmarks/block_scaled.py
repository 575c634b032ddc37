"""Products with block-scaled FP8 weights on a GPU, of groups of rows and dense, beside bf16.

    python benchmarks/block_scaled.py                          the table, as the engine launches it
    python benchmarks/block_scaled.py --sweep --tokens 64      also the fastest other tiles

Shapes are those of Qwen3.5-35B-A3B: 256 experts of which a token takes 8, drawn evenly, and one
that all take; of the dense products the largest. A graph holds as many calls as it takes for their
weights to exceed the GPU's cache many times over, each with a routing (or a weight) of its own, as
the layers of a model. A cell is the median over replays of the time of one call. Bytes are those of
the weights that a call has rows for, and stand beside the FP8 time, as the floating-point
operations do; the time to quantise the rows is apart. "plain" is the same kernel on bf16; "torch"
is `grouped_mm` or `linear` in bf16.
"""

import argparse
import itertools
import statistics
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled, block_scaled_rows
from upcurve.engine.kernels import block_scaled_product as product
from upcurve.engine.kernels.tiles import Tile
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

EXPERTS, CHOSEN = 256, 8
GROUPED = {"gate and up": (1024, 2048), "down": (2048, 512)}
DENSE = ((12288, 2048), (9216, 2048), (2048, 4096))
COLD_BYTES, MOST_CALLS = 2**28, 32
SHOWN = 3


@dataclass
class Case:
    """Rows and weights in both formats, and who is multiplied by what in each call."""

    name: str
    tokens: int
    rows: torch.Tensor
    weight: torch.Tensor
    """bf16 [G, N, K]."""
    quantized: tuple[torch.Tensor, torch.Tensor]
    ends: list[torch.Tensor] | None
    """Of the groups, for every call; None where each group is the dense weight of a call."""
    touched: float
    """Groups that a call has rows for, on average."""

    @property
    def operations(self):
        """Of floating point, of one call."""
        return 2 * len(self.rows) * self.weight.shape[1] * self.weight.shape[2]

    @property
    def weight_bytes(self):
        """Of FP8, that one call has rows for."""
        return self.touched * self.weight.shape[1] * self.weight.shape[2]

    def tile(self):
        """Return what is chosen for FP8."""
        groups, columns, depth = self.weight.shape
        return Tile.of(
            rows=len(self.rows),
            groups=1 if self.ends is None else groups,
            columns=columns,
            depth=depth,
            element_size=1,
        )

    def fp8(self, tile=None):
        """Return the product of each call, of rows that are quantised before."""
        rows, (weight, scale) = block_scaled_rows.quantize_rows(self.rows), self.quantized
        dtype = self.rows.dtype
        if self.ends is None:
            return [
                lambda w=w, s=s: product.linear(*rows, w, s, dtype, tile=tile)
                for w, s in zip(weight, scale, strict=True)
            ]
        return [
            lambda e=e: product.grouped(*rows, weight, scale, e, dtype, tile=tile)
            for e in self.ends
        ]

    def plain(self):
        """Return the same products of the same kernel in bf16; None of a dense one."""
        if self.ends is None:
            return None
        return [lambda e=e: product.grouped_plain(self.rows, self.weight, e) for e in self.ends]

    def torch(self):
        """Return the same products of torch in bf16."""
        if self.ends is None:
            return [lambda w=w: F.linear(self.rows, w) for w in self.weight]
        turned = self.weight.transpose(1, 2)
        return [lambda e=e: F.grouped_mm(self.rows, turned, offs=e) for e in self.ends]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="1,16,64,2048,8192")
    parser.add_argument("--products", default="grouped,dense")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--sweep", action="store_true", help="try other tiles")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}")
    print(errors() + "\n")
    print(
        "| product | tokens | rows, columns, depth, warps, stages | fp8 us | TB/s | TFLOP/s "
        "| quantise us | plain us | torch us |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    tokens = [int(each) for each in arguments.tokens.split(",")]
    for case in cases(arguments.products.split(","), tokens):
        beside = [
            functions and measure(functions, arguments.repeats)
            for functions in (quantising(case.rows), case.plain(), case.torch())
        ]
        show(case, case.tile(), measure(case.fp8(), arguments.repeats), beside)
        if arguments.sweep:
            for time, tile in sweep(case, arguments.repeats):
                show(case, tile, time, [None] * 3)


def show(case, tile, time, beside):
    how = f"{tile.rows}, {tile.columns}, {tile.depth}, {tile.warps}, {tile.stages}"
    rest = " | ".join("" if each is None else f"{each:.1f}" for each in beside)
    speed = f"{case.weight_bytes / time / 1e6:.2f} | {case.operations / time / 1e6:.0f}"
    print(f"| {case.name} | {case.tokens} | {how} | {time:.1f} | {speed} | {rest} |", flush=True)


def cases(kinds, tokens):
    """Yield the cases; those of one product share its weight."""
    if "grouped" in kinds:
        for name, (columns, depth) in GROUPED.items():
            weight = normal(EXPERTS + 1, columns, depth)
            quantized = block_scaled.quantize_blocks(weight)
            for count in tokens:
                yield grouped_case(name, count, weight, quantized)
    if "dense" in kinds:
        for columns, depth in DENSE:
            weight = normal(calls(columns * depth), columns, depth)
            quantized = block_scaled.quantize_blocks(weight)
            for count in tokens:
                name = f"{columns} x {depth}"
                yield Case(name, count, normal(count, depth), weight, quantized, None, 1)


def grouped_case(name, tokens, weight, quantized):
    _, columns, depth = weight.shape
    most = min(tokens * CHOSEN, EXPERTS) + 1
    counts = [
        torch.cat(
            [
                torch.rand(tokens, EXPERTS).topk(CHOSEN).indices.flatten(),
                torch.full([tokens], EXPERTS),
            ]
        ).bincount(minlength=EXPERTS + 1)
        for _ in range(calls(most * columns * depth))
    ]
    touched = statistics.mean((each > 0).sum().item() for each in counts)
    ends = [each.cumsum(0).int().cuda() for each in counts]
    rows = normal(tokens * (CHOSEN + 1), depth)
    return Case(name, tokens, rows, weight, quantized, ends, touched)


def quantising(rows):
    return [lambda: block_scaled_rows.quantize_rows(rows)] * MOST_CALLS


def calls(size):
    return min(MOST_CALLS, -(-COLD_BYTES // size))


def normal(*size):
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def measure(functions, repeats):
    """Return microseconds of one function, of all in one graph, the median over replays."""
    for function in functions[:2]:
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for function in functions:
            function()
    graph.replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / len(functions))
    return statistics.median(times)


def sweep(case, repeats):
    """Return the fastest other tiles, fastest first; those that do not fit are left out."""
    chosen, timed = case.tile(), []
    heights = {each for each in (chosen.rows // 2, chosen.rows, 2 * chosen.rows) if each >= 16}
    for rows, columns, warps, stages in itertools.product(
        sorted(heights), (32, 64, 128), (4, 8), (2, 3, 4, 6)
    ):
        tile = replace(chosen, rows=rows, columns=columns, warps=warps, stages=stages)
        if tile == chosen or rows * columns > 128 * 128:
            continue
        try:
            timed.append((measure(case.fp8(tile), repeats), tile))
        except triton.runtime.errors.OutOfResources:
            continue
    return sorted(timed, key=lambda each: each[0])[:SHOWN]


def errors():
    """Say how far a small case is from float64 of the same dequantised operands."""
    counts = torch.tensor([3, 0, 17, 1, 100])
    ends, group = counts.cumsum(0).int().cuda(), torch.arange(5).repeat_interleave(counts).cuda()
    x, values = normal(121, 1100), normal(5, 1000, 1100)
    weight, scale = block_scaled.quantize_blocks(values)
    rows, row_scale = block_scaled_rows.quantize_rows(x)
    its_rows, its_scale = block_scaled.quantize_rows(x)
    per_row = row_scale.double().repeat_interleave(128, 1)[:, :1100]
    exact = block_scaled.dequantize_blocks(weight, scale, torch.float64)
    expected = torch.einsum("rk,rnk->rn", rows.double() * per_row, exact[group])
    said = [f"quantised rows unlike torch's: {(rows.float() != its_rows.float()).sum().item()}"]
    said.append(f"scales: {(row_scale - its_scale).abs().max().item():.0e}")
    for tile_rows in (16, 64, 128):
        tile = Tile(rows=tile_rows, columns=64, depth=128, warps=4, stages=3)
        out = product.grouped(rows, row_scale, weight, scale, ends, torch.float32, tile=tile)
        said.append(f"fp8, tiles of {tile_rows} rows: {relative(out, expected):.1e}")
    plain = torch.einsum("rk,rnk->rn", x.double(), values.double()[group])
    said.append(f"plain bf16: {relative(product.grouped_plain(x, values, ends), plain):.1e}")
    return "relative errors of norms: " + ", ".join(said)


def relative(out, expected):
    return ((out.double() - expected).norm() / expected.norm()).item()


if __name__ == "__main__":
    main()
