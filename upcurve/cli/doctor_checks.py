"""What `upcurve doctor` looks at: each check a fact, and a mend where something is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from upcurve import __version__

LEAST_FREE = 2**30
"""Bytes of disk: a sweep's traces are some hundred megabytes."""
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd")
"""There where the kernel's driver of NVIDIA or AMD is loaded."""
DRIVERS = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version")
SERVING = ("torch", "safetensors", "fastapi", "uvicorn", "tokenizers")


@dataclass(frozen=True, slots=True)
class Check:
    """One fact about this machine."""

    name: str
    state: Literal["ok", "warning", "broken"]
    """broken: `upcurve serve` cannot work; warning: something else cannot, or not well."""
    found: str
    mend: str = ""


def checks(store: str) -> Iterator[Check]:
    """Yield what there is of all that serving and recording need."""
    yield Check("upcurve", "ok", f"{__version__}, Python {platform.python_version()}")
    missing = [name for name in SERVING if find_spec(name) is None]
    if missing:
        mend = "pip install 'upcurve[engine]'"
        yield Check("engine", "broken", f"{', '.join(missing)} not installed", mend)
    if "torch" not in missing:
        yield from _torch()
    yield _store(store)


def _torch() -> Iterator[Check]:
    import torch

    runtime = torch.version.cuda and f"CUDA {torch.version.cuda}"
    runtime = runtime or (torch.version.hip and f"ROCm {torch.version.hip}") or "for the CPU"
    yield Check("torch", "ok", f"{torch.__version__}, {runtime}")
    if torch.cuda.is_available():
        yield from _gpus()
    elif any(Path(file).exists() for file in GPU_FILES):
        built = bool(torch.version.cuda or torch.version.hip)
        mend = (
            "update its driver to one that this torch supports, and see that this user may open it"
            if built
            else "install a torch that is built for it: https://pytorch.org/get-started/locally"
        )
        yield Check("gpu", "broken", "there is one, but torch does not see it", mend)
    else:
        yield Check("gpu", "ok", f"none: serve computes on {os.cpu_count()} CPU cores")


def _gpus() -> Iterator[Check]:
    import torch

    driver = next((_driver(Path(file)) for file in DRIVERS if Path(file).exists()), "unknown")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = f"{torch.cuda.get_device_name(index)}, driver {driver}"
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        if free < total / 2:
            mend = "end what holds the memory, or lower serve's --memory-share"
            yield Check(f"gpu {index}", "warning", f"{name}, {memory}", mend)
        else:
            yield Check(f"gpu {index}", "ok", f"{name}, {memory}")
    yield _tried(
        "kernels", _run_kernel, "Triton needs a C compiler (gcc) and Python.h (python3-dev)"
    )
    yield _tried("tuning", _read_tuning, "set UPCURVE_TUNING=none to serve without")


def _driver(file: Path) -> str:
    words = file.read_text(encoding="utf-8").split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def _tried(name: str, work: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, "ok", work())
    except Exception as error:  # whatever fails here fails in serve
        line = " ".join(str(error).split()) or type(error).__name__
        return Check(name, "broken", line, mend)


def _run_kernel(device: str = "cuda") -> str:
    """Compile and run one kernel of the engine, as serve does with all of them."""
    import torch

    from upcurve.engine.kernels.mixing import mix_in_one
    from upcurve.engine.platform import HAS_TRITON, triton

    if not HAS_TRITON:
        raise ModuleNotFoundError("triton is not installed")
    results = torch.randn(4, 2, 64, device=device)
    weights = torch.rand(4, 2, device=device)
    expected = (results * weights.unsqueeze(-1)).sum(1)
    torch.testing.assert_close(mix_in_one(results, weights), expected)
    return f"triton {triton.__version__} compiles, runs and is right"


def _read_tuning() -> str:
    import torch

    from upcurve.engine import tuning

    chip = tuning.chip_of(torch.device("cuda"))
    assert chip is not None
    count = len(tuning.entries(chip))
    return f"{count} shapes measured on {chip}" if count else f"none for {chip}: rules decide"


def _store(store: str) -> Check:
    if "://" in store:
        return Check("store", "ok", "a database: not opened here")
    folder = Path(store).absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        mend = "give another --store (UPCURVE_STORE)"
        return Check("store", "warning", f"{folder} cannot be written", mend)
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < LEAST_FREE:
        return Check("store", "warning", found, "free some disk, or give another --store")
    return Check("store", "ok", found)
