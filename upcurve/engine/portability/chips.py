"""The chips that kernels are compiled for, and what a program may take of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from upcurve.engine import tuning
from upcurve.engine.errors import EngineInputError


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU as far as dispatch and compilation ask about it."""

    architecture: str
    """As compilers call it."""
    name: str
    """As its driver calls it."""
    backend: str
    warp: int
    """Threads of a warp (wave)."""
    multiprocessors: int
    shared_bytes: int
    """Most shared memory (LDS) of a program."""
    registers: int
    """Most of a thread; on AMD vector registers, accumulation registers included."""
    grid: tuple[int, int, int]
    """Most programs along each axis."""

    @property
    def capability(self) -> tuple[int, int]:
        """As torch gives it for NVIDIA: 9, 0 of sm_90; of AMD, 9, 5 of gfx950."""
        digits = "".join(filter(str.isdigit, self.architecture))
        return int(digits[0]), int(digits[1])

    @property
    def target(self) -> GPUTarget:
        """What Triton compiles for."""
        architecture: Any = self.architecture
        if self.backend == "cuda":
            architecture = int(self.architecture.removeprefix("sm_"))
        return GPUTarget(self.backend, architecture, self.warp)


CHIPS = {
    chip.architecture: chip
    for chip in (
        # CUDA C++ Programming Guide, table of technical specifications, compute capability 9.0.
        Chip("sm_90", "NVIDIA H200", "cuda", 32, 132, 227 * 1024, 255, (2**31 - 1, 65535, 65535)),
        # AMD Instinct CDNA 4 ISA guide: 160 KiB of LDS, 512 vector registers; HIP's grid is 2^32
        # threads along x, and 2^16 programs along the others.
        Chip(
            "gfx950", "AMD Instinct MI355X", "hip", 64, 256, 160 * 1024, 512, (2**26, 65535, 65535)
        ),
    )
}


def chips_of(names: str) -> list[Chip]:
    """Return the chips of comma-separated architectures.

    Raises:
        EngineInputError: there is no such chip.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in CHIPS:
            raise EngineInputError(
                "target", f"{name!r} is not known", f"give some of {', '.join(CHIPS)}"
            )
    return [CHIPS[name] for name in chosen]


class _Driver:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip

    def get_current_target(self) -> GPUTarget:
        return self._chip.target

    def get_current_device(self) -> str:
        # Triton keeps what it has compiled by this.
        return self._chip.architecture

    def get_current_stream(self, device: str) -> int:  # noqa: ARG002
        return 0


@contextmanager
def as_if_on(chip: Chip) -> Iterator[None]:
    """Let torch and Triton answer dispatch as they do on a chip: its name, size and vendor."""
    properties = SimpleNamespace(
        name=chip.name, multi_processor_count=chip.multiprocessors, warp_size=chip.warp
    )
    before = driver._active
    driver.set_active(_Driver(chip))
    tuning.forget()
    try:
        with (
            patch.object(torch.cuda, "get_device_properties", lambda *_: properties),
            patch.object(torch.cuda, "get_device_name", lambda *_: chip.name),
            patch.object(torch.cuda, "get_device_capability", lambda *_: chip.capability),
            patch.object(torch.version, "hip", "7" if chip.backend == "hip" else None),
        ):
            yield
    finally:
        tuning.forget()
        driver._active = before
