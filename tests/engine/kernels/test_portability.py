"""Every kernel compiles for an H200 and an MI355X, and fits their shared memory and registers."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SHARED_BYTES = {"sm_90": 232_448, "gfx950": 163_840}
"""Of a program: 227 KiB on Hopper (CUDA C++ programming guide), 160 KiB of LDS on CDNA 4."""
SPILLED = {("_prepare", "sm_90"): 512}
"""Four warps that spill a little are faster there than eight that do not (docs/measured.md)."""


@pytest.mark.timeout(300)
def test_every_kernel_compiles_for_both_gpus_within_their_limits(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.kernels.portability"],
        capture_output=True,
        text=True,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = {
        name: {each["kernel"] for each in facts if each["architecture"] == name}
        for name in SHARED_BYTES
    }
    assert kernels["sm_90"] == kernels["gfx950"]
    assert len(kernels["sm_90"]) == 10
    for each in facts:
        architecture = each["architecture"]
        assert each["shared"] <= SHARED_BYTES[architecture], each
        assert each["spilled"] <= SPILLED.get((each["kernel"], architecture), 0), each
