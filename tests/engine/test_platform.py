"""The engine where there is no Triton, and which GPU a process takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from upcurve.engine.platform import take_gpu

VISIBLE = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")

WITHOUT_TRITON = """
import importlib, importlib.util, pkgutil
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
from upcurve.engine import kernels, platform
names = [module.name for module in pkgutil.iter_modules(kernels.__path__)]
for name in names:
    importlib.import_module(f"upcurve.engine.kernels.{name}")
print(platform.HAS_TRITON, len(names))
"""


def test_every_kernel_can_be_imported_without_triton() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    there, count = ended.stdout.split()
    assert there == "False"
    assert int(count) > 20


@pytest.mark.parametrize(
    ("seen", "count", "index", "taken"),
    [
        # Nothing to choose from: what the process sees stays as it is.
        ({}, 0, 0, {}),
        ({}, 1, 0, {}),
        ({}, 1, 3, {}),
        ({"CUDA_VISIBLE_DEVICES": "MIG-7"}, 1, 0, {"CUDA_VISIBLE_DEVICES": "MIG-7"}),
        ({}, 4, 2, {"CUDA_VISIBLE_DEVICES": "2"}),
        ({}, 2, 3, {"CUDA_VISIBLE_DEVICES": "1"}),
        ({"CUDA_VISIBLE_DEVICES": "5,GPU-a"}, 2, 1, {"CUDA_VISIBLE_DEVICES": "GPU-a"}),
        ({"HIP_VISIBLE_DEVICES": "6,7"}, 2, 0, {"HIP_VISIBLE_DEVICES": "6"}),
    ],
)
def test_a_process_takes_one_of_several_gpus(
    seen: dict[str, str],
    count: int,
    index: int,
    taken: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for name in VISIBLE:
        # Set first, so that it is undone whatever is set inside.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in seen.items():
        monkeypatch.setenv(name, value)
    assert take_gpu(index) == count
    assert {name: os.environ[name] for name in VISIBLE if name in os.environ} == taken
