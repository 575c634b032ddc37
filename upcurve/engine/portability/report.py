"""Verdicts: which variants of kernels a chip has no room for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from upcurve.engine.portability.chips import Chip
from upcurve.engine.portability.compilation import Taken, compile_all
from upcurve.engine.portability.launches import Variant

ACCEPTED_SPILLS = {
    ("expert_down._down", "gfx950"): (
        8,
        "eight registers of prompts of about 512 tokens; no such GPU was at hand to tune for",
    ),
}
"""Kernel and architecture -> most that may be spilled, and why (docs/measured.md)."""
CHECKING = "float32 has no tensor cores: such a model checks numbers, and may be slow"


@dataclass(frozen=True, slots=True)
class Finding:
    """One variant of a kernel on one chip."""

    kernel: str
    """File and name."""
    target: str
    steps: tuple[str, ...]
    """Which launch it."""
    warps: int | None
    """Of a program; None where the kernel leaves it to Triton."""
    grid: tuple[int, int, int]
    """The largest along each axis."""
    registers: int | None
    """None where it does not compile."""
    shared_bytes: int | None
    spilled: int | None
    accepted: str | None
    """Why it may spill."""
    problems: tuple[str, ...]
    """Why it cannot run there, or would be slow; none where all is well."""


def findings(chip: Chip, variants: list[Variant]) -> Iterator[Finding]:
    """Compile variants for a chip, which need not be there; yield what was found of each."""
    for variant, taken in zip(variants, compile_all(variants, chip), strict=True):
        yield _finding(chip, variant, taken)


def _finding(chip: Chip, variant: Variant, taken: Taken | str) -> Finding:
    problems = []
    for axis, size, most in zip("xyz", variant.grid, chip.grid, strict=True):
        if size > most:
            problems.append(f"{size:,} programs along {axis} are over {most:,}")
    accepted = None
    if isinstance(taken, str):
        problems.append(f"does not compile: {taken}")
    else:
        if taken.registers > chip.registers:
            problems.append(f"{taken.registers} registers are over {chip.registers}")
        if taken.shared_bytes > chip.shared_bytes:
            problems.append(
                f"{taken.shared_bytes:,} bytes of shared memory are over {chip.shared_bytes:,}"
            )
        most, why = ACCEPTED_SPILLS.get((variant.kernel, chip.architecture), (0, ""))
        if taken.spilled and not variant.for_speed:
            accepted = CHECKING
        elif taken.spilled > most:
            problems.append(f"{taken.spilled} spilled")
        elif taken.spilled:
            accepted = why
    known = taken if isinstance(taken, Taken) else None
    return Finding(
        kernel=variant.kernel,
        target=chip.architecture,
        steps=tuple(variant.steps),
        warps=variant.options.get("num_warps"),
        grid=variant.grid,
        registers=known.registers if known else None,
        shared_bytes=known.shared_bytes if known else None,
        spilled=known.spilled if known else None,
        accepted=accepted,
        problems=tuple(problems),
    )
