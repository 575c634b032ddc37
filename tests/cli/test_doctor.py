"""`upcurve doctor`: facts, mends and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from upcurve.cli import doctor_checks, run
from upcurve.engine.kernels import mixing


def doctor(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(("doctor", *arguments))
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


def found(capfd, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, out, err = doctor(capfd, "--json", *arguments)
    assert err == ""
    return code, {each["name"]: each for each in json.loads(out)}


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor_checks, "GPU_FILES", ())


@pytest.mark.usefixtures("no_gpu")
def test_a_machine_without_a_gpu_is_well(capfd, tmp_path):
    code, facts = found(capfd, "--store", str(tmp_path / "deep" / "store"))
    assert code == 0
    assert {each["state"] for each in facts.values()} == {"ok"}
    assert torch.__version__ in facts["torch"]["found"]
    assert "none" in facts["gpu"]["found"]
    assert facts["store"]["found"].startswith(str(tmp_path / "deep" / "store"))
    assert not (tmp_path / "deep").exists()


@pytest.mark.usefixtures("no_gpu")
def test_the_table_says_the_same(capfd):
    code, out, _ = doctor(capfd)
    assert code == 0
    assert torch.__version__ in out


@pytest.mark.usefixtures("no_gpu")
def test_missing_packages_are_broken_and_mended_by_one_command(capfd, monkeypatch):
    there = doctor_checks.find_spec
    monkeypatch.setattr(
        doctor_checks, "find_spec", lambda name: None if name == "uvicorn" else there(name)
    )
    code, facts = found(capfd)
    assert code == 1
    assert facts["engine"]["state"] == "broken"
    assert facts["engine"]["found"] == "uvicorn not installed"
    assert facts["engine"]["mend"] == "pip install 'upcurve[engine]'"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("cuda", "mend"), [(None, "install a torch"), ("13.0", "update its dri")])
def test_a_gpu_that_torch_does_not_see_is_broken(capfd, monkeypatch, tmp_path, cuda, mend):
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(doctor_checks, "GPU_FILES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    code, facts = found(capfd)
    assert code == 1
    assert facts["gpu"]["state"] == "broken"
    assert facts["gpu"]["mend"].startswith(mend)


@pytest.mark.usefixtures("no_gpu")
def test_a_store_that_cannot_be_kept_is_a_warning(capfd, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    code, facts = found(capfd, "--store", str(file))
    assert (code, facts["store"]["state"]) == (0, "warning")
    usage = SimpleNamespace(free=2**29)
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda path: usage)
    code, facts = found(capfd, "--store", str(tmp_path))
    assert (code, facts["store"]["state"]) == (0, "warning")
    assert "0.5 GiB free" in facts["store"]["found"]


def test_what_fails_on_a_gpu_is_one_line_and_broken():
    def fail() -> str:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    check = doctor_checks._tried("kernels", fail, "install one")
    assert (check.state, check.mend) == ("broken", "install one")
    assert check.found == "Failed to find C compiler. Please specify via CC"


def test_a_kernel_runs_and_a_wrong_one_is_broken(monkeypatch):
    pytest.importorskip("triton")
    check = doctor_checks._tried("kernels", lambda: doctor_checks._run_kernel("cpu"), "install one")
    assert (check.state, check.mend) == ("ok", "")
    assert check.found.startswith("triton 3")
    monkeypatch.setattr(mixing, "mix_in_one", lambda results, weights: results[:, 0])
    check = doctor_checks._tried("kernels", lambda: doctor_checks._run_kernel("cpu"), "install one")
    assert (check.state, check.mend) == ("broken", "install one")
    assert "not close" in check.found


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23\nGCC 13.2",
            "570.86.15",
        ),
        ("6.10.5\n", "6.10.5"),
        ("", "unknown"),
    ],
)
def test_a_driver_s_version_is_read(tmp_path: Path, text, version):
    (tmp_path / "version").write_text(text)
    assert doctor_checks._driver(tmp_path / "version") == version


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--all"], "all"),
        (["--variants"], "variants"),
        (["--model", "x"], "model"),
        (["--target", "sm_90"], "target"),
    ],
)
def test_what_only_kernels_mean_is_refused_without_them(capfd, arguments, flag):
    code, _, err = doctor(capfd, *arguments)
    assert code == 2
    assert f"--{flag} says what --kernels compiles" in err
    assert err.count("\n") == 1


def test_kernels_are_not_proven_by_an_interpreter(capfd):
    pytest.importorskip("triton")
    code, _, err = doctor(capfd, "--kernels")
    assert code == 2
    assert err == "upcurve: error: TRITON_INTERPRET: is set: nothing is compiled; unset it\n"
