"""Dense products with block-scaled FP8 weights: time, share of the floor, who computes them.

    python benchmarks/block_scaled.py

The projections of Qwen3.5-35B-A3B, each call with a weight of its own. Rows come in FP8 already, as
a norm emits them; a single row is not quantised. The floor is the larger of: weight, rows and
result at the speed of a copy; the product at the rate of torch's FP8 product. "shares" are summed
by the norm that follows. Errors are against float64 with the same weight; FP8 rows leave 3e-2.
Torch is `linear` with the same weight in bf16.
"""

import statistics
from contextlib import ExitStack
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu_timing import Run, relative, share, spread

from upcurve.engine.kernels import block_scaled, block_scaled_rows, matrix_vector
from upcurve.engine.kernels import block_scaled_product as product

PROJECTIONS = {
    "Gated DeltaNet in": (12288, 2048, block_scaled.linear),
    "queries, keys, values": (9216, 2048, block_scaled.linear),
    "out": (2048, 4096, block_scaled.linear_shares),
}
"""Columns, channels, and how a step computes them."""
TINY = {"tiny": (256, 128, block_scaled.linear), "shares": (128, 1024, block_scaled.linear_shares)}
ROWS = (1, 16, 64, 512, 8192)
CHECKED = 64
PLACES = {
    "one row": (matrix_vector, "multiply_row"),
    "own": (product, "linear"),
    "own, shares": (product, "linear_shares"),
    "library": (block_scaled, "_multiply_in_library"),
}


def main():
    run = Run(__doc__, launches)
    copy, rate = run.copy_bandwidth(), run.product_rate(torch.float8_e4m3fn)
    run.table(
        *("projection", "columns x channels", "rows", "by", "us", "floor us", "of what", "share"),
        *("TB/s", "TFLOP/s", "torch bf16 us", "error"),
    )
    for name, (columns, depth, multiply) in (TINY if run.rehearsed else PROJECTIONS).items():
        weights = [weight(run, columns, depth) for _ in range(run.calls(columns * depth))]
        for rows in (1, 17) if run.rehearsed else ROWS:
            run.row(
                f"{name} | {columns} x {depth} | {rows}",
                lambda rows=rows, weights=weights, multiply=multiply: measured(
                    run, multiply, weights, rows, copy, rate
                ),
            )
    run.end()


def launches(run):
    for columns, depth, multiply in PROJECTIONS.values():
        values, scale = weight(run, columns, depth)
        for rows in ROWS:
            x = run.normal(rows, depth)
            multiply(x, values, scale, block_scaled_rows.quantize(x))


def weight(run, columns, depth):
    """Return FP8 that fills its range, and scales that give each row a length of about 1."""
    values = run.normal(columns, depth).mul_(100).clamp_(-448, 448).to(block_scaled.FP8)
    scale = torch.rand(columns // 128, depth // 128, device=run.device) + 0.5
    return values, scale / (100 * depth**0.5)


def measured(run, multiply, weights, rows, copy, rate):
    """Return the cells of a row."""
    columns, depth = weights[0][0].shape
    x = run.normal(rows, depth)
    quantized = None if rows == 1 else block_scaled_rows.quantize(x)
    by, result = caught(lambda: multiply(x, *weights[0], quantized))
    result = result.double()
    result = result.sum(1) if result.dim() == 3 else result
    exact = block_scaled.dequantize_blocks(*weights[0], torch.float64)
    error = relative(result[:CHECKED], x[:CHECKED].double() @ exact.t())
    times = run.measure([lambda w=w: multiply(x, *w, quantized) for w in weights])
    plain = [run.normal(columns, depth) for _ in weights]
    torchs = run.measure([lambda w=w: F.linear(x, w) for w in plain])
    elements = columns * depth
    moved = elements * (1 + 4 / 128**2) + rows * (depth * (2 if rows == 1 else 1) + 2 * columns)
    operations, time = 2 * rows * elements, statistics.median(times)
    floor, what = max((moved / copy, "bytes"), (operations / rate, "FP8"))
    return (
        *(by, spread(times), f"{floor:.1f}", what, share(floor, times)),
        *(f"{moved / time / 1e6:.2f}", f"{operations / time / 1e6:.0f}"),
        *(f"{statistics.median(torchs):.1f}", error),
    )


def caught(call):
    """Return who computes a call, and its result."""
    found = []
    with ExitStack() as stack:
        for name, (module, attribute) in PLACES.items():
            function = getattr(module, attribute)

            def keep(*given, name=name, function=function, **options):
                found.append(name)
                return function(*given, **options)

            stack.enter_context(patch.object(module, attribute, keep))
        result = call()
    return " + ".join(found), result


if __name__ == "__main__":
    main()
