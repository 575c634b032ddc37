"""Verdicts: which variants of kernels a chip has no room for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from upcurve.engine.portability.chips import Chip
from upcurve.engine.portability.compilation import Taken, compile_all
from upcurve.engine.portability.launches import Variant


@dataclass(frozen=True, slots=True)
class Accepted:
    """What some forms of a kernel may spill on one chip."""

    kernel: str
    target: str
    most: int
    """Registers on AMD, bytes of a thread on NVIDIA."""
    why: str
    where: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Constants of the forms, and their values; all forms where empty."""

    def covers(self, variant: Variant, chip: Chip) -> bool:
        """Return whether it is about a variant on a chip."""
        same = (variant.kernel, chip.architecture) == (self.kernel, self.target)
        return same and all(variant.options[name] in each for name, each in self.where.items())


ACCEPTED_SPILLS = [
    Accepted(
        "expert_down._down",
        "gfx950",
        8,
        "eight registers of prompts of about 512 tokens; no such GPU was at hand to tune for",
    ),
    Accepted(
        "block_scaled_product._multiply",
        "gfx950",
        18,
        "18 registers of prompts on one of eight ranks; no such GPU was at hand to tune for",
        {"depth": (1024,)},
    ),
    Accepted(
        "paged_prefill._attend_tile",
        "sm_90",
        28,
        "28 bytes of prompts where 2, 4 or 16 query heads share a key; 8 do where it was measured",
        {"group": (2, 4, 16)},
    ),
]
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
        may = next((each for each in ACCEPTED_SPILLS if each.covers(variant, chip)), None)
        if taken.spilled and not variant.for_speed:
            accepted = CHECKING
        elif taken.spilled > (may.most if may else 0):
            problems.append(f"{taken.spilled} spilled")
        elif taken.spilled and may:
            accepted = may.why
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
