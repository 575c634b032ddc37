"""Every kernel that a step launches compiles for an H200 and an MI355X, and fits them."""

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import upcurve.engine.kernels
from upcurve.engine.portability.models import FAMILY, MODELS

pytest.importorskip("triton")


def doctor(*arguments, cache=None):
    """Run `upcurve doctor --kernels`, of which nothing may be interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if cache is not None:
        environment["TRITON_CACHE_DIR"] = str(cache)
    return subprocess.run(
        [sys.executable, "-m", "upcurve", "doctor", "--kernels", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def proof(cache):
    return doctor("--json", cache=cache)


def launched_kernels():
    """Return file.function of every kernel that some code of the package launches."""
    found = set()
    for file in Path(inspect.getfile(upcurve.engine.kernels)).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        found |= {
            f"{file.stem}.{call.value.id}"
            for call in calls
            if isinstance(call, ast.Subscript)
            and isinstance(call.value, ast.Name)
            and any(
                isinstance(node, ast.FunctionDef) and node.name == call.value.id
                for node in tree.body
            )
        }
    return found


@pytest.mark.timeout(1800)
def test_every_kernel_compiles_for_both_gpus_within_their_limits(proof):
    findings = json.loads(proof.stdout)
    lacking = [f"{each['kernel']}: {each['problems']}" for each in findings if each["problems"]]
    assert lacking == []
    assert proof.returncode == 0, proof.stderr


@pytest.mark.timeout(1800)
def test_no_kernel_of_the_package_is_left_out(proof):
    findings = json.loads(proof.stdout)
    for target in ("sm_90", "gfx950"):
        compiled = {each["kernel"] for each in findings if each["target"] == target}
        assert launched_kernels() <= compiled
        assert all(each["registers"] > 0 for each in findings if not each["problems"])


@pytest.mark.timeout(1800)
def test_both_models_and_all_formats_launch_them(proof):
    steps = {step for each in json.loads(proof.stdout) for step in each["steps"]}
    for what in ("35B", "397B/TP4", "bf16 weights", "fp8 weights", "bf16 KV", "fp8 KV"):
        assert any(what in step for step in steps)
    for what in ("fp32 state", "bf16 state", ": 1 decode", ": 256 decodes", "prefill of 8192"):
        assert any(what in step for step in steps)


def test_a_rank_of_several_sums_in_memory_where_gpus_reach_each_other():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    said = subprocess.run(
        [sys.executable, "-m", "tests.engine.portability.summed"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == ["sm_90 [4]", "gfx950 [0]"]


@pytest.mark.timeout(1800)
def test_a_model_of_ones_own(proof, cache, tmp_path):
    assert proof.stdout
    folder = tmp_path / "my-model"
    folder.mkdir()
    config = {**FAMILY, **MODELS["35B"]}
    (folder / "config.json").write_text(json.dumps(config))
    done = doctor("--json", "--target", "gfx950", "--model", str(folder), cache=cache)
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)
    assert {each["target"] for each in findings} == {"gfx950"}
    assert all(step.startswith("my-model, ") for each in findings for step in each["steps"])


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    done = doctor("--model", str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"upcurve: error: model: {tmp_path}/none is not a folder")


def test_an_unknown_target_is_one_line():
    ended = doctor("--target", "sm_90,sm_8")
    assert ended.returncode == 2
    assert ended.stderr == (
        "upcurve: error: target: 'sm_8' is not known; give some of sm_90, gfx950\n"
    )
