"""The engine where there is no Triton."""

from __future__ import annotations

import subprocess
import sys

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
