"""Where a run took place: host, GPUs, software versions and the variables that steer speed."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = (
    "upcurve",
    "torch",
    "triton",
    "transformers",
    "vllm",
    "sglang",
    "flashinfer-python",
    "amd-aiter",
    "flash-linear-attention",
)
"""Distributions whose versions are recorded where they are installed."""

PREFIXES = (
    "SGLANG_", "VLLM_", "AITER_", "FLASHINFER_",  # engines and their kernel libraries
    "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_",  # framework, compiler, allocator
    "CUDA_", "NVIDIA_", "CUBLAS_", "CUDNN_",  # which GPUs are seen, launch order, libraries
    "HIP_", "HSA_", "ROCR_", "ROCM_", "AMD_", "GPU_", "MIOPEN_", "HIPBLASLT_",  # the same on AMD
    "NCCL_", "RCCL_", "MSCCL_",  # what the ranks talk over
    "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_",  # threads of the CPU part
    "MALLOC_", "LD_PRELOAD", "TOKENIZERS_PARALLELISM",  # allocators and tokenizer threads
)  # fmt: skip
"""Only variables that start so are recorded: those known to change speed. The rest is private."""

REDACTED = "(redacted)"
_SECRET_NAME = re.compile(
    r"(^|_|-)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH)($|_|-)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"(hf_|sk-|gh[pousr]_|github_pat_|xox[abp]-|AKIA|eyJ)[A-Za-z0-9_-]{8,}"  # known kinds of keys
    r"|://[^/\s:@]+:[^/\s@]+@"  # a URL with a password
    r"|-----BEGIN"
    r"|^(?![./])(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9])[A-Za-z0-9+/_=-]{32,}$"  # long, random, no path
)


def host() -> dict[str, Any]:
    """Return name, CPU model, cores, memory in bytes, operating system and kernel."""
    return {
        "name": platform.node(),
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": len(psutil.Process().cpu_affinity()) if _has_affinity() else None,
        "memory_bytes": psutil.virtual_memory().total,
        "operating_system": _operating_system(),
        "kernel": platform.release(),
    }


def software(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return name -> version of Python and of each library that is installed; imports none."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that steer speed (`PREFIXES`), without secrets."""
    return redacted({name: value for name, value in environ.items() if name.startswith(PREFIXES)})


def redacted(values: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in the order of their names, those that look like keys blanked out."""
    return {
        name: REDACTED if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value) else value
        for name, value in sorted(values.items())
    }


def gpus() -> list[dict[str, Any]]:
    """Return name, memory in MiB and driver of each GPU; [] where no vendor's tool answers."""
    return _nvidia() or _amd_smi() or _rocm_smi()


def _nvidia() -> list[dict[str, Any]]:
    answer = _ask(
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version",
        "--format=csv,noheader,nounits",
    )
    rows = [[cell.strip() for cell in row] for row in csv.reader(answer.splitlines())]
    return [
        {"vendor": "NVIDIA", "name": name, "memory_mib": _number(memory), "driver": driver}
        for name, memory, driver in (row for row in rows if len(row) == 3)
    ]


def _amd_smi() -> list[dict[str, Any]]:
    answer = _json("amd-smi", "static", "--asic", "--vram", "--driver", "--json")
    # Newer versions wrap the list: {"gpu_data": [...]}.
    entries = answer.get("gpu_data", []) if isinstance(answer, dict) else answer
    found = []
    for entry in entries if isinstance(entries, list) else []:
        size = _at(entry, "vram", "size")
        found.append(
            {
                "vendor": "AMD",
                "name": str(_at(entry, "asic", "market_name") or ""),
                "memory_mib": _number(_at(size, "value") if isinstance(size, dict) else size),
                "driver": str(_at(entry, "driver", "version") or ""),
            }
        )
    return found


def _rocm_smi() -> list[dict[str, Any]]:
    answer = _json(
        "rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"
    )
    if not isinstance(answer, dict):
        return []
    driver = str(_at(answer, "system", "Driver version") or "")
    found = []
    for card, entry in sorted(answer.items()):
        if card.startswith("card") and isinstance(entry, dict):
            name = entry.get("Card Series") or entry.get("Card series") or ""
            memory = _number(entry.get("VRAM Total Memory (B)"))
            found.append(
                {
                    "vendor": "AMD",
                    "name": str(name),
                    "memory_mib": None if memory is None else memory // 2**20,
                    "driver": driver,
                }
            )
    return found


def _ask(*command: str) -> str:
    """Return what a tool prints; the empty string where it is absent, fails or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout


def _json(*command: str) -> Any:
    try:
        return json.loads(_ask(*command))
    except ValueError:
        return None


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> int | None:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _has_affinity() -> bool:
    return hasattr(psutil.Process, "cpu_affinity")
