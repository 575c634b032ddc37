"""What is compiled before the first request is all that any step launches."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.warm_up import warm_up_steps

pytest.importorskip("triton")
from upcurve.engine.portability import ahead


def test_no_step_launches_what_was_not_compiled_ahead():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    said = subprocess.run(
        [sys.executable, "-m", "tests.engine.portability.served"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert [line for line in lines if " lacks " in line] == []
    runs = [line.split() for line in lines]
    # Two ranks sum in each other's memory.
    assert [(name, ranks) for name, _, _, ranks in runs] == [
        ("sm_90", "0"),
        ("gfx950", "0"),
        ("sm_90", "2"),
    ]
    assert all(int(ahead) >= int(launched) > 50 for _, ahead, launched, _ in runs)


def request_of(folder: Path, **options: Any) -> ahead.Request:
    return ahead.Request(str(folder), EngineOptions(**options), "sm_90", "NVIDIA H200", 132, 32, 64)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a model's folder; Triton's cache is elsewhere."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_what_was_compiled_is_marked_and_begun_no_more(folder, monkeypatch):
    request = request_of(folder)
    properties = SimpleNamespace(major=9, minor=0, name="NVIDIA H200", warp_size=32)
    properties.multi_processor_count = 132
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(ahead, "variants", lambda *_: {})
    asked = io.TextIOWrapper(io.BytesIO(msgspec.json.encode(request)))
    monkeypatch.setattr(sys, "stdin", asked)
    started = []

    def popen(*_: Any, **__: Any) -> SimpleNamespace:
        started.append(1)
        return SimpleNamespace(stdin=io.BytesIO())

    monkeypatch.setattr(ahead.subprocess, "Popen", popen)
    ahead.begin(folder, request.options, torch.device("cuda", 0), 64)
    assert len(started) == 1
    ahead.main()
    assert ahead.begin(folder, request.options, torch.device("cuda", 0), 64) is None
    other = EngineOptions(quantization="fp8")
    ahead.begin(folder, other, torch.device("cuda", 0), 64)
    assert len(started) == 2


def test_what_fails_is_not_marked(folder, monkeypatch):
    request = request_of(folder)
    asked = io.TextIOWrapper(io.BytesIO(msgspec.json.encode(request)))
    monkeypatch.setattr(sys, "stdin", asked)
    with pytest.raises(EngineInputError):
        ahead.main()
    assert not ahead.mark_of(request).exists()


def test_a_mark_is_called_after_all_that_kernels_depend_on(folder, monkeypatch):
    marks = {ahead.mark_of(request_of(folder)), ahead.mark_of(request_of(folder, off="fused_norm"))}
    (folder / "config.json").write_text('{"a": 1}')
    marks.add(ahead.mark_of(request_of(folder)))
    tuned = folder / "tuned.json"
    monkeypatch.setenv("UPCURVE_TUNING", str(tuned))
    for text in ("", "{}"):
        tuned.write_text(text)
        marks.add(ahead.mark_of(request_of(folder)))
    monkeypatch.setattr(ahead, "ENGINE", folder)
    marks.add(ahead.mark_of(request_of(folder)))
    assert len(marks) == 6
    assert {mark.parent for mark in marks} == {folder / "cache"}


def test_warm_up_steps_keep_within_the_limits_of_a_step():
    steps = warm_up_steps(max_batch_tokens=300, max_running_requests=20)
    assert max(step.tokens for step in steps) == 256
    assert max(step.singles for step in steps) == 16
    assert max(len(step.prompts) for step in steps) == 16
    assert min(step.tokens for step in steps) == 1
