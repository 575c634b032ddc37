"""Compiles variants for a chip, several at a time, and reads what their machine code takes."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton

from upcurve.engine.portability.chips import Chip, as_if_on
from upcurve.engine.portability.launches import Variant

PROGRAMS = Path(triton.__file__).parent / "backends/nvidia/bin"
"""NVIDIA's assembler and the reader of its output come with Triton."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one program takes."""

    registers: int
    """Of a thread; on AMD vector registers, accumulation registers included."""
    shared_bytes: int
    spilled: int
    """Bytes of a thread on NVIDIA, registers on AMD, that go through memory for want of room."""


def compile_all(variants: list[Variant], chip: Chip) -> Iterator[Taken | str]:
    """Yield what each variant takes of a chip, or the line that says why it does not compile."""
    with _workers(variants, chip, len(os.sched_getaffinity(0))) as pool:
        first = [pool.submit(_measure, index) for index in range(len(variants))]
    for index, future in enumerate(first):
        if not isinstance(future.exception(), BrokenProcessPool):
            yield future.result()
            continue
        # A compiler that aborts takes its process along, and with it those beside it.
        with _workers(variants, chip, 1) as pool:
            yield _outcome(pool.submit(_measure, index))


def fill_cache(variants: list[Variant], chip: Chip) -> None:
    """Compile variants into Triton's cache on disk; what does not compile is left out."""
    with _workers(variants, chip, len(os.sched_getaffinity(0))) as pool:
        for future in [pool.submit(_compile, index) for index in range(len(variants))]:
            future.exception()


def _workers(variants: list[Variant], chip: Chip, count: int) -> ProcessPoolExecutor:
    # Forked, because a kernel cannot be sent; nothing has run on a thread here.
    return ProcessPoolExecutor(count, get_context("fork"), _take, (variants, chip))


def _outcome(future: Future[Taken | str]) -> Taken | str:
    try:
        return future.result()
    except BrokenProcessPool:
        return "the compiler aborts"


_work: tuple[list[Variant], Chip]


def _take(variants: list[Variant], chip: Chip) -> None:
    """Keep in a worker what it has to do."""
    global _work  # noqa: PLW0603
    _work = variants, chip


def _compile(index: int) -> None:
    variants, chip = _work
    with as_if_on(chip):
        variants[index].compile()


def _measure(index: int) -> Taken | str:
    variants, chip = _work
    try:
        with as_if_on(chip):
            compiled = variants[index].compile()
    except Exception as raised:  # whatever a compiler says is the finding
        error: BaseException = raised
        while error.__cause__ is not None:
            error = error.__cause__
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
        return f"{type(error).__name__}: {lines[-1] if lines else ''}"
    read = _read_nvidia if chip.backend == "cuda" else _read_amd
    return read(compiled)


def _read_nvidia(compiled: Any) -> Taken:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _say(PROGRAMS / "cuobjdump", "-res-usage", cubin)
        spilled = 0
        if _number(r"STACK:(\d+)", usage):
            # A stack may hold arrays too: the assembler tells them apart.
            source = Path(folder, "kernel.ptx")
            source.write_text(compiled.asm["ptx"])
            target = re.search(r"\.target (\w+)", compiled.asm["ptx"])
            assert target is not None
            options = ("-v", "--gpu-name", target[1], "-o", os.devnull, source)
            spilled = _number(r"(\d+) bytes spill stores", _say(PROGRAMS / "ptxas", *options))
    registers = _number(r"REG:(\d+)", usage)
    return Taken(registers, int(compiled.metadata.shared), spilled)


def _read_amd(compiled: Any) -> Taken:
    # https://llvm.org/docs/AMDGPUUsage.html#code-object-v3-metadata
    text = compiled.asm["amdgcn"]
    spilled = _number(r"\.vgpr_spill_count:\s*(\d+)", text)
    spilled += _number(r"\.sgpr_spill_count:\s*(\d+)", text)
    return Taken(_number(r"\.vgpr_count:\s*(\d+)", text), int(compiled.metadata.shared), spilled)


def _say(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])
