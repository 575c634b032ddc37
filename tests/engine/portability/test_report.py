"""What is found of kernels that do not fit, each for a reason of its own."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

WRONG = "does not compile: ValueError: arange's range must be a power of 2"
EXPECTED = {
    "fits": [["70,000 programs along y are over 65,535"], []],
    "much_shared": [["shared"]],
    "spills": [["spilled"]],
    "wrong": [[WRONG]],
}
NVIDIA_ONLY = {"sm_90": [[]], "gfx950": [["does not compile: the compiler aborts"]]}


def kind(problem):
    """How much it is that does not fit is the compiler's affair."""
    return {"spilled": "spilled", "bytes": "shared"}.get(problem.split()[1], problem)


@pytest.mark.parametrize("target", NVIDIA_ONLY)
def test_what_does_not_fit_is_found(target, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.portability.unfit", target],
        capture_output=True,
        text=True,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for each in json.loads(done.stdout):
        problems = [kind(problem) for problem in each["problems"]]
        found.setdefault(each["kernel"].removeprefix("__main__."), []).append(problems)
    assert found == {**EXPECTED, "nvidia_only": NVIDIA_ONLY[target]}
