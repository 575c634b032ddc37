"""Norms with what comes before and after them, beside torch: time, share of copy bandwidth, error.

    python benchmarks/norm.py

Residual add and zero-centred norm, bf16 out; the same with FP8 out; the same of experts' results
that are still to be weighed and summed; and the gated norm of heads. "eager" is torch one operation
at a time, "compiled" torch.compile of it, both in the same kind of graph. The floor is what has to
be read and written, once, at the speed of a copy; up to 64 tokens lie in the cache and it is the
launch that is measured. Errors are against float64.
"""

import statistics

import torch
from gpu_timing import Run, line, relative, share, spread

from upcurve.engine.kernels import block_scaled, rms_norm

EPS, CHOICES, HEADS, DIM = 1e-6, 9, 32, 128
SIZES = ((1, 4096), (64, 4096), (1024, 4096), (8192, 4096), (8192, 2048))
MIXED = ((1, 2048), (64, 2048), (8192, 2048))
GATED = (1, 64, 8192)
COMPILED = ((1, 4096), (64, 4096), (1024, 4096), (8192, 4096))
LONGEST = 60
"""Seconds after which torch.compile is not begun: it takes several."""


def main():
    run = Run(__doc__, launches)
    copy = run.copy_bandwidth()
    run.table("norm", "tokens x channels", "us", "of copy", "eager us", "ratio", "error", "of FP8")
    for tokens, width in [(3, 256)] if run.rehearsed else SIZES:
        for quantize in (False, True):
            kind = "add, norm" + ", FP8" * quantize
            row(run, copy, kind, AddNorm(run, tokens, width, quantize=quantize))
    for tokens, width in [(3, 256)] if run.rehearsed else MIXED:
        row(run, copy, "mix, add, norm, FP8", AddNorm(run, tokens, width, parts=CHOICES))
    for tokens in (3,) if run.rehearsed else GATED:
        row(run, copy, "gated norm, FP8", GatedNorm(run, tokens))
    if not run.rehearsed:
        run.table("torch.compile", "tokens x channels", "us")
        for tokens, width in COMPILED:
            case = AddNorm(run, tokens, width)
            run.row(f"add, norm | {tokens} x {width}", lambda case=case: compiled(run, case))
    run.end()


def launches(run):
    cases = [AddNorm(run, *size, quantize=each) for size in SIZES for each in (False, True)]
    cases += [AddNorm(run, *size, parts=CHOICES) for size in MIXED]
    for case in (*cases, *(GatedNorm(run, tokens) for tokens in GATED)):
        case.ours(case.inputs(1)[0])


def row(run, copy, kind, case):
    def cells():
        errors = case.errors()
        inputs = case.inputs(run.calls(case.size))
        ours = run.measure([lambda given=given: case.ours(given) for given in inputs])
        eager = run.measure([lambda given=given: case.eager(*given) for given in inputs])
        ratio = statistics.median(eager) / statistics.median(ours)
        return spread(ours), share(case.size / copy, ours), spread(eager), f"{ratio:.2f}", *errors

    run.row(f"{kind} | {case.title}", cells)


class AddNorm:
    """The residual stream, an update or the parts of one, and their weights."""

    def __init__(self, run, tokens, width, *, quantize=True, parts=None):
        self.run, self.tokens, self.width, self.parts = run, tokens, width, parts
        self.quantize = quantize
        self.title = f"{tokens} x {width}" + f", {parts} parts" * (parts is not None)
        self.weight = torch.randn(width, device=run.device) / 10
        # The residual stream is read and written, rows are written; the rest is read or written.
        moved = 2 * 3 * width + 2 * width * (parts or 1) + 4 * (parts or 0)
        self.size = tokens * (moved + quantize * (width + 4 * width // 128))

    def inputs(self, count):
        """Return what so many calls are given, each its own."""
        shape = (self.tokens, self.width)
        if self.parts:
            shape = (self.tokens, self.parts, self.width)
        return [
            (
                self.run.normal(self.tokens, self.width),
                self.run.normal(*shape),
                torch.rand(self.tokens, self.parts, device=self.run.device) if self.parts else None,
            )
            for _ in range(count)
        ]

    def ours(self, given):
        """Compute it in one launch."""
        residual, update, mixing = given
        return rms_norm.add_norm(
            residual, update, self.weight, EPS, mixing=mixing, quantize=self.quantize
        )

    def eager(self, residual, update, mixing):
        """Compute the same in torch: new residual, rows, FP8."""
        wide = torch.promote_types(residual.dtype, torch.float32)
        if mixing is not None:
            update = torch.bmm(mixing.unsqueeze(1).to(wide), update.to(wide)).squeeze(1)
            update = update.to(residual.dtype)
        residual = residual + update
        x = residual.to(wide)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * (1.0 + self.weight)
        rows = x.to(residual.dtype)
        return residual, rows, eager_fp8(rows) if self.quantize else None

    def errors(self):
        """Return those of the rows, and of the rows in FP8."""
        ((residual, update, mixing),) = self.inputs(1)
        _, wanted, _ = self.eager(residual.double(), update.double(), mixing)
        got = self.ours((residual, update, mixing))
        return relative(got.rows, wanted), of_fp8(got.quantized, wanted)


class GatedNorm:
    """Outputs of Gated DeltaNet's heads, and their gates."""

    def __init__(self, run, tokens):
        self.run, self.tokens = run, tokens
        self.title = f"{tokens} x {HEADS} heads of {DIM}"
        self.weight = torch.rand(DIM, device=run.device) + 0.5
        self.size = tokens * HEADS * (3 * 2 * DIM + DIM + 4)

    def inputs(self, count):
        """Return what so many calls are given, each its own."""
        shape = (self.tokens, HEADS, DIM)
        return [(self.run.normal(*shape), self.run.normal(*shape)) for _ in range(count)]

    def ours(self, given):
        """Compute it in one launch."""
        return rms_norm.gated_norm(*given, self.weight, EPS, quantize=True)

    def eager(self, x, gate):
        """Compute the same in torch: rows, FP8."""
        wide = torch.promote_types(x.dtype, torch.float32)
        x = x.to(wide)
        x = self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
        rows = (x * torch.nn.functional.silu(gate.to(wide))).to(gate.dtype).flatten(1)
        return rows, eager_fp8(rows)

    def errors(self):
        """Return those of the rows, and of the rows in FP8."""
        ((x, gate),) = self.inputs(1)
        wanted, _ = self.eager(x.double(), gate.double())
        rows, quantized = self.ours((x, gate))
        return relative(rows, wanted), of_fp8(quantized, wanted)


def eager_fp8(rows):
    groups = rows.float().unflatten(-1, (-1, 128))
    scale = groups.abs().amax(-1, keepdim=True) / block_scaled.HIGHEST
    return (groups / scale).to(block_scaled.FP8).flatten(1), scale.squeeze(-1)


def of_fp8(quantized, wanted):
    if quantized is None:
        return ""
    scale = quantized.scale.double().repeat_interleave(128, 1)
    return relative(quantized.values.double() * scale, wanted)


def compiled(run, case):
    if run.elapsed() > LONGEST:
        return [f"left out: {LONGEST} s are over"]
    function = torch.compile(case.eager, dynamic=False)
    try:
        inputs = case.inputs(run.calls(case.size))
        return [spread(run.measure([lambda given=given: function(*given) for given in inputs]))]
    except Exception as error:  # no compiler, or one that does not know this Python
        return [line(error)]


if __name__ == "__main__":
    main()
