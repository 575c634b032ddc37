"""GPU specifications as the limits take them, and what a limit assumes, in words."""

from __future__ import annotations

from upcurve.errors import InputError
from upcurve.limits.shape import Precision
from upcurve.limits.step import Chip
from upcurve.records.published import specifications


def chip(hardware: str) -> Chip:
    """Return what a GPU can do.

    Raises:
        InputError: its specification is not known.
    """
    known = specifications()
    if hardware not in known:
        mend = f"known are {', '.join(known)}"
        raise InputError("hardware", f"no specification of {hardware!r}", mend)
    own = known[hardware]
    return Chip(
        name=hardware,
        memory_bytes=own.hbm_gb * 1e9,
        bytes_per_s=own.hbm_tb_per_s * 1e12,
        bf16_flops=own.bf16_dense_tflops * 1e12,
        fp8_flops=own.fp8_dense_tflops * 1e12,
        gpus=own.scale_up_gpus,
    )


def assumptions(of: Chip, precision: Precision) -> list[str]:
    """Return in words what a limit rests on."""
    peak = of.fp8_flops if precision == "fp8" else of.bf16_flops
    kv = "FP8" if precision == "fp8" else "bf16"
    return [
        f"Limit: every step takes max(bytes / bandwidth, FLOPs / peak); {of.name}: "
        f"{of.bytes_per_s / 1e12:g} TB/s, {peak / 1e12:,.0f} TFLOP/s {precision} dense (vendor).",
        "Bytes: the weights that a batch touches (uniform routing), keys and values in "
        f"{kv}, recurrent state in float32 read and written. FLOPs: decodes and their share of "
        "prompts. No communication, no launches, every batch up to 1,024 that memory holds.",
        "Tensor parallel over powers of two of GPUs; a KV head is copied where there are fewer.",
    ]
