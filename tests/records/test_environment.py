from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from upcurve.records import environment


def tool(folder: Path, name: str, output: str, code: int = 0) -> None:
    """Put a program on the PATH that prints what the vendor's tool prints."""
    (folder / f"{name}.out").write_text(output)
    script = folder / name
    script.write_text(f"#!/bin/sh\ncat {folder / name}.out\nexit {code}\n")
    script.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_host_is_this_machine() -> None:
    host = environment.host()
    assert host["name"] == platform.node()
    assert host["logical_cores"] == psutil.cpu_count()
    assert 1 <= host["usable_cores"] <= host["logical_cores"]
    assert host["memory_bytes"] == psutil.virtual_memory().total
    assert host["kernel"] == platform.release()
    assert host["operating_system"]
    assert host["cpu"]
    json.dumps(host)


def test_software_is_read_without_importing() -> None:
    found = environment.software()
    assert found["python"] == platform.python_version()
    assert found["upcurve"] == metadata.version("upcurve")
    assert "no-such-distribution" not in environment.software(["no-such-distribution"])


def test_no_tool_no_gpus(path: Path) -> None:
    assert environment.gpus() == []


@pytest.mark.parametrize("name", ["nvidia-smi", "amd-smi", "rocm-smi"])
@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("", 0),
        ("NVIDIA-SMI has failed because it couldn't communicate\n", 9),
        ("[1, 2", 0),
        ("7", 0),
    ],
)
def test_tools_that_fail_are_no_gpus(path: Path, name: str, output: str, code: int) -> None:
    tool(path, name, output, code)
    assert environment.gpus() == []


def test_nvidia(path: Path) -> None:
    line = "NVIDIA H200, 143771, 570.133.20\n"
    tool(path, "nvidia-smi", line * 2)
    gpu = {"vendor": "NVIDIA", "name": "NVIDIA H200", "memory_mib": 143771, "driver": "570.133.20"}
    assert environment.gpus() == [gpu, gpu]


@pytest.mark.parametrize("wrapped", [False, True])
def test_amd_smi(path: Path, wrapped: bool) -> None:
    entry = {
        "gpu": 0,
        "asic": {"market_name": "AMD Instinct MI355X", "vendor_id": "0x1002"},
        "driver": {"name": "amdgpu", "version": "6.14.14"},
        "vram": {"type": "HBM3E", "size": {"value": 294896, "unit": "MB"}},
    }
    tool(path, "amd-smi", json.dumps({"gpu_data": [entry]} if wrapped else [entry]))
    [gpu] = environment.gpus()
    assert gpu == {
        "vendor": "AMD",
        "name": "AMD Instinct MI355X",
        "memory_mib": 294896,
        "driver": "6.14.14",
    }


def test_rocm_smi(path: Path) -> None:
    answer = {
        "card0": {"Card Series": "AMD Instinct MI300X", "VRAM Total Memory (B)": "206141652992"},
        "system": {"Driver version": "6.8.5"},
    }
    tool(path, "rocm-smi", json.dumps(answer))
    [gpu] = environment.gpus()
    assert (gpu["name"], gpu["memory_mib"], gpu["driver"]) == (
        "AMD Instinct MI300X",
        206141652992 // 2**20,
        "6.8.5",
    )


def test_only_variables_that_steer_speed_are_recorded() -> None:
    given = {
        "SGLANG_USE_AITER": "1",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "LD_PRELOAD": "/usr/lib/libjemalloc.so.2",
        "HOME": "/home/someone",
        "HF_TOKEN": "hf_abcdefghijklmnop",
        "AWS_SECRET_ACCESS_KEY": "x",
        "UPCURVE_STORE": "postgresql://u:p@h/d",
    }
    assert list(environment.variables(given)) == [
        "CUDA_VISIBLE_DEVICES",
        "LD_PRELOAD",
        "OMP_NUM_THREADS",
        "SGLANG_USE_AITER",
        "TOKENIZERS_PARALLELISM",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_API_KEY", "abc"),
        ("SGLANG_AUTH_TOKEN", "1"),
        ("VLLM_PASSWORD", "pw"),
        ("VLLM_X", "hf_AbCdEfGhIjKl"),
        ("VLLM_X", "sk-proj-abcdefgh1234"),
        ("VLLM_X", "http://user:pass@proxy:3128"),
        ("VLLM_X", "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZkdISUpLTE1O"),
    ],
)
def test_what_looks_like_a_key_is_blanked(name: str, value: str) -> None:
    assert environment.redacted({name: value}) == {name: environment.REDACTED}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "true"),
        ("VLLM_MAX_TOKENS_PER_STEP", "32768"),
        ("NCCL_IB_HCA", "mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4"),
        ("TRITON_CACHE_DIR", "/var/cache/triton/with/a/long/name/Version123"),
        ("VLLM_URL", "http://127.0.0.1:8000/v1"),
    ],
)
def test_what_steers_speed_is_kept(name: str, value: str) -> None:
    assert environment.redacted({name: value}) == {name: value}
