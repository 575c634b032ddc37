"""The experts of a layer in FP8, from rows to their weighted sum: parts, and share of the floor.

    python benchmarks/experts.py

Shapes are those of Qwen3.5-35B-A3B, and of a quarter (tensor parallel over 4) of
Qwen3.5-397B-A17B, with the shared expert as one more choice of all. Tokens choose evenly, anew in
every call, and calls take turns between layers. Rows come in FP8 already, as a norm emits them. The
rest is sorting, quantising between both products, and mixing. The floor is the larger of: the
weights of the experts that are chosen (as many as even choices are expected to reach), rows and
results at the speed of a copy; all products at the rate of torch's FP8 product. Errors are against
float64 with the same weights, of some tokens; FP8 rows leave 3e-2.
"""

import statistics
from contextlib import ExitStack
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu_timing import Run, relative, share, spread

from upcurve.engine.kernels import block_scaled, block_scaled_rows, experts, matrix_vector
from upcurve.engine.kernels.mixing import mix

MODELS = {
    "35B": (2048, 512, 256, 8, (1, 8, 16, 64, 256, 1024, 8192)),
    "397B/TP4": (4096, 256, 512, 10, (1, 16, 64, 256, 8192)),
}
"""Channels, width of an expert, experts, choices, tokens."""
TINY = {"tiny": (256, 128, 4, 2, (1, 40))}
LAYERS, CALLS, CHECKED = 2, 8, 2
SHOWN_PARTS = {
    "gate and up": ((matrix_vector, "gate_up_row"), (experts, "multiply_gate_up")),
    "down": ((matrix_vector, "down_row"), (experts, "multiply_down")),
}
"""Whichever of both dispatch calls."""


def main():
    run = Run(__doc__, launches)
    copy, rate = run.copy_bandwidth(), run.product_rate(torch.float8_e4m3fn)
    run.table(
        *("model", "tokens", "us", "gate and up", "down", "rest"),
        *("floor us", "of what", "share", "TB/s", "TFLOP/s", "error"),
    )
    for name, (*shape, tokens) in (TINY if run.rehearsed else MODELS).items():
        layers = [Layer(run, *shape) for _ in range(LAYERS)]
        for count in tokens:
            run.row(
                f"{name} | {count}",
                lambda count=count, layers=layers: measured(run, layers, count, copy, rate),
            )
        del layers
    run.end()


def launches(run):
    for *shape, tokens in MODELS.values():
        layer = Layer(run, *shape)
        for count in tokens:
            layer.call(*layer.inputs(count))


class Layer:
    """Weights of the experts of one layer."""

    def __init__(self, run, hidden, width, count, chosen):
        self.run, self.hidden, self.width, self.count = run, hidden, width, count
        self.chosen = chosen
        self.gate_up, self.gate_up_scale = self.weight(2 * width, hidden)
        self.down, self.down_scale = self.weight(hidden, width)

    def weight(self, rows, columns):
        """Return FP8 that fills its range, and scales that give each row a length of about 1."""
        values = self.run.normal(self.count + 1, rows, columns).mul_(100).clamp_(-448, 448)
        size = (self.count + 1, rows // 128, columns // 128)
        scale = torch.rand(size, device=self.run.device) + 0.5
        return values.to(block_scaled.FP8), scale / (100 * columns**0.5)

    def inputs(self, tokens):
        """Return rows, the same in FP8, choices and their weights."""
        rows, device = self.run.normal(tokens, self.hidden), self.run.device
        ids = torch.rand(tokens, self.count, device=device).topk(self.chosen).indices
        ids = torch.cat([ids, ids.new_full((tokens, 1), self.count)], 1).to(torch.int32)
        mixing = torch.rand(tokens, self.chosen + 1, device=device) / self.chosen
        return rows, block_scaled_rows.quantize(rows), ids, mixing

    def call(self, rows, quantized, ids, mixing):
        """Compute the weighted sum of the experts."""
        weights = self.gate_up, self.down, self.gate_up_scale, self.down_scale
        return mix(experts.experts_grouped(rows, ids, *weights, quantized=quantized), mixing)

    def exact(self, rows, ids, mixing):
        """Compute it in float64."""
        total = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
        for token, its in enumerate(ids.tolist()):
            for choice, expert in enumerate(its):
                gate_up, down = (
                    block_scaled.dequantize_blocks(weight[expert], scale[expert], torch.float64)
                    for weight, scale in (
                        (self.gate_up, self.gate_up_scale),
                        (self.down, self.down_scale),
                    )
                )
                gate, up = (gate_up @ rows[token].double()).chunk(2)
                total[token] += mixing[token, choice].double() * (down @ (F.silu(gate) * up))
        return total

    def floors(self, tokens):
        """Return bytes and operations that no way around is known for."""
        reached = self.count * (1 - (1 - self.chosen / self.count) ** tokens) + 1
        elements = 3 * self.hidden * self.width
        moved = reached * elements * (1 + 4 / 128**2) + tokens * self.hidden * (1 + 4 / 128 + 2)
        return moved, 2 * elements * tokens * (self.chosen + 1)


def measured(run, layers, tokens, copy, rate):
    """Return the cells of a row."""
    given = [(layers[i % LAYERS], layers[0].inputs(tokens)) for i in range(CALLS)]
    layer, (rows, quantized, ids, mixing) = given[0]
    first = slice(0, CHECKED)
    wanted = layer.exact(rows[first], ids[first], mixing[first])
    error = relative(layer.call(rows, quantized, ids, mixing)[first], wanted)
    whole = run.measure([lambda at=at, inputs=inputs: at.call(*inputs) for at, inputs in given])
    parts = [
        statistics.median(run.measure(calls))
        for calls in caught(lambda: [at.call(*inputs) for at, inputs in given])
    ]
    moved, operations = layer.floors(tokens)
    floor, what = max((moved / copy, "bytes"), (operations / rate, "FP8"))
    time = statistics.median(whole)
    return (
        spread(whole),
        *(f"{part:.1f}" for part in (*parts, time - sum(parts))),
        *(f"{floor:.1f}", what, share(floor, whole)),
        *(f"{moved / time / 1e6:.2f}", f"{operations / time / 1e6:.0f}", error),
    )


def caught(run_all):
    """Return, for each of `SHOWN_PARTS`, its calls as dispatch made them."""
    found = {name: [] for name in SHOWN_PARTS}
    with ExitStack() as stack:
        for name, places in SHOWN_PARTS.items():
            for module, attribute in places:
                function = getattr(module, attribute)

                def keep(*given, calls=found[name], function=function, **options):
                    calls.append(lambda: function(*given, **options))
                    return function(*given, **options)

                stack.enter_context(patch.object(module, attribute, keep))
        run_all()
    return found.values()


if __name__ == "__main__":
    main()
