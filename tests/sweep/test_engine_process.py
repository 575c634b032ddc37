"""Launching, watching and ending real processes: nothing is ever left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.ports import free_port
from tests.processes import gone, until
from upcurve.errors import InputError
from upcurve.sweep import engine_process
from upcurve.sweep.engine_process import EngineError, EngineProcess, executable, last_lines

HOST = "127.0.0.1"
# Writes its process id and those of its two children (one in a session of its own), then waits.
FAMILY = """
import os, signal, subprocess, sys
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
if sys.argv[2] == "stubborn":
    sleep[2] = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + sleep[2]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
with open(sys.argv[1] + ".part", "w") as file:
    print(os.getpid(), *(child.pid for child in children), file=file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
while True:
    signal.pause()
"""
# A sweep in small: launches the command that it is given, then waits for ever.
HOLDER = """
import os, sys, time
from pathlib import Path
from upcurve.sweep.engine_process import EngineProcess
with EngineProcess(sys.argv[2:], os.environ, Path(sys.argv[1]), grace_s=10):
    time.sleep(600)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Give the process ids of a running family, and end it whatever the test did."""
    pids: list[int] = []

    def wait() -> list[int]:
        assert until((tmp_path / "pids").exists)
        pids.extend(int(word) for word in (tmp_path / "pids").read_text().split())
        assert len(pids) == 3
        assert not gone(pids[:1])
        return pids

    yield wait
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def command_of_family(tmp_path: Path, kind: str) -> list[str]:
    return [sys.executable, "-c", FAMILY, str(tmp_path / "pids"), kind]


def serve(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", str(port), "--bind", HOST]


def test_is_ready_once_it_answers_and_is_gone_afterwards(log: Path) -> None:
    port = free_port()
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    with EngineProcess(serve(port), os.environ, log) as engine:
        assert engine.wait_until_ready(HOST, port, "/", timeout_s=60) > 0
        assert engine.running
        engine.check()
        assert "GET /" in log.read_text()
    assert not engine.running
    assert {each.pid for each in psutil.Process().children(recursive=True)} <= before


def test_gets_its_environment_and_nothing_else(log: Path) -> None:
    command = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    with EngineProcess(command, {"ONLY": "this"}, log) as engine:
        assert until(lambda: not engine.running)
    names = log.read_text()
    assert "'ONLY'" in names
    assert "'HOME'" not in names


def test_an_engine_that_dies_at_start_says_its_last_words(log: Path) -> None:
    words = "; ".join(f"print({n})" for n in range(40))
    command = [sys.executable, "-c", f"{words}; print('out of memory'); raise SystemExit(3)"]
    with EngineProcess(command, os.environ, log) as engine, pytest.raises(EngineError) as caught:
        engine.wait_until_ready(HOST, free_port(), "/health", timeout_s=60)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"it ended with status 3; its last lines ({log}):"
    assert lines[-2:] == ["39", "out of memory"]
    assert len(lines) == 13


def test_names_the_signal_that_ended_the_engine(log: Path) -> None:
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with (
        EngineProcess(command, os.environ, log) as engine,
        pytest.raises(EngineError, match="was ended by SIGKILL and said nothing"),
    ):
        engine.wait_until_ready(HOST, free_port(), "/health", timeout_s=60)


def test_an_engine_that_never_answers_200_is_reported_with_its_last_answer(log: Path) -> None:
    port = free_port()
    with EngineProcess(serve(port), os.environ, log) as engine:
        engine.wait_until_ready(HOST, port, "/", timeout_s=60)
        with pytest.raises(EngineError, match=r"after 2 s \(last: HTTP 404 from /health\)"):
            engine.wait_until_ready(HOST, port, "/health", timeout_s=2)


def test_a_file_that_is_no_program_is_reported(log: Path, tmp_path: Path) -> None:
    broken = tmp_path / "engine"
    broken.write_text("no program")
    broken.chmod(0o755)
    with (
        EngineProcess([str(broken)], os.environ, log) as engine,
        pytest.raises(EngineError, match=r"cannot launch .*/engine: Exec format error"),
    ):
        engine.wait_until_ready(HOST, free_port(), "/health", timeout_s=60)


@pytest.mark.parametrize("kind", ["willing", "stubborn"])
def test_stop_ends_every_descendant(
    kind: str, log: Path, tmp_path: Path, family: Callable[[], list[int]]
) -> None:
    with EngineProcess(
        command_of_family(tmp_path, kind),
        os.environ,
        log,
        grace_s=0.2 if kind == "stubborn" else 30,
    ):
        pids = family()
    assert gone(pids)


def test_children_of_a_dead_engine_are_ended_too(
    log: Path, tmp_path: Path, family: Callable[[], list[int]]
) -> None:
    with EngineProcess(command_of_family(tmp_path, "willing"), os.environ, log) as engine:
        pids = family()
        os.kill(pids[0], signal.SIGKILL)
        assert until(lambda: not engine.running)
        assert gone(pids)
        with pytest.raises(EngineError, match="SIGKILL"):
            engine.check()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_when_the_sweep_dies(
    end: signal.Signals, log: Path, tmp_path: Path, family: Callable[[], list[int]]
) -> None:
    command = command_of_family(tmp_path, "willing")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(log), *command], stderr=subprocess.DEVNULL
    )
    pids = family()
    guard = psutil.Process(pids[0]).ppid()
    holder.send_signal(end)
    assert holder.wait(120) != 0
    assert until(lambda: gone([*pids, guard]))


def test_the_engine_dies_with_a_killed_guard(
    log: Path, tmp_path: Path, family: Callable[[], list[int]]
) -> None:
    with EngineProcess(command_of_family(tmp_path, "willing"), os.environ, log) as engine:
        pids = family()
        psutil.Process(pids[0]).parent().kill()  # type: ignore[union-attr]
        assert until(lambda: gone(pids[:1]))
        with pytest.raises(EngineError, match="SIGKILL"):
            engine.check()


def test_a_program_is_found_on_the_path_of_the_engine(tmp_path: Path) -> None:
    program = tmp_path / "own-engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert executable(["own-engine", "--x"], {"PATH": str(tmp_path)}) == [str(program), "--x"]
    with pytest.raises(InputError, match=r"engine\.command: there is no program 'own-engine'"):
        executable(["own-engine"], {"PATH": "/nowhere"})


def test_upcurve_is_the_build_that_sweeps() -> None:
    command = executable(["upcurve", "--version"], {})
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("upcurve, version")


def test_a_free_port_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as server, monkeypatch.context() as patch:
        taken = server.getsockname()[1]
        patch.setattr(engine_process, "_PORTS", (taken,))
        with pytest.raises(OSError, match="is free"), engine_process.free_port(HOST):
            pass
    with engine_process.free_port(HOST) as port:
        # A server gets it, and meanwhile no other caller does.
        with monkeypatch.context() as patch:
            patch.setattr(engine_process, "_PORTS", (port,))
            with pytest.raises(OSError, match="is free"), engine_process.free_port(HOST):
                pass
        socket.create_server((HOST, port)).close()


def test_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 200_000 + b"\nlast but one\n\n\xff last \n\n")
    assert last_lines(log, 2) == ["last but one", "\ufffd last"]
    log.write_bytes(b"")
    assert last_lines(log) == []
