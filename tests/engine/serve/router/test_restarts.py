"""Processes that end again and again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.parallel.seat import Node
from upcurve.engine.serve.announcement import Announcement
from upcurve.engine.serve.listening import host_and_port, listen_to_last
from upcurve.engine.serve.router import restarts as module
from upcurve.engine.serve.router.replica_process import HOST, ReplicaProcesses, Start
from upcurve.engine.serve.router.restarts import History, Restarts

NODE = Node(0, 1, 1, HOST, 0)
START = Start(EngineOptions(device="cpu"), NODE)
URL = f"http://{HOST}:9"


def watched(
    processes: ReplicaProcesses,
    *,
    needed: int = 0,
    transfers: str | None = None,
    until: Callable[[History, list[bool]], bool],
) -> tuple[History, list[int]]:
    """Watch a process that ends before it serves; return what became of it, and its ends."""
    stopped: list[bool] = []
    ended: list[int] = []
    # As if it had served.
    known = Announcement("server", URL, "none", None, None, transfers=transfers)
    processes.announcements = [known]

    async def main() -> History:
        restarts = Restarts(
            processes, needed=needed, ended=ended.append, stop=lambda: stopped.append(True)
        )
        (history,) = restarts.histories
        async with asyncio.timeout(300):
            while not until(history, stopped):
                await asyncio.sleep(0.02)
        restarts.close()
        return history

    return asyncio.run(main()), ended


def given_up(history: History, _: list[bool]) -> bool:
    return history.given_up


def test_one_that_ends_too_often_in_a_row_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "DELAYS_SECONDS", (0.0, 0.1))
    caplog.set_level("INFO")
    with ReplicaProcesses(tmp_path / "none", [START], {}) as processes:
        history, ended = watched(processes, until=given_up)
    assert history.restarts == 2
    assert ended == [0, 0, 0]
    said = [each.getMessage() for each in caplog.records]
    assert [line.partition(": replica")[2][-5:] for line in said if "anew" in line] == [
        *("n 0 s", "0.1 s"),
    ]
    assert sum("is not a folder" in line for line in said) == 2
    assert said[-1] == f"replica 0: exit code 2: replica {URL} is left as it is after 2 attempts"


def test_that_somebody_has_its_port_is_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "DELAYS_SECONDS", (0.0, 0.0))
    with listen_to_last(HOST) as meeting:
        where = meeting.getsockname()
        start = Start(EngineOptions(device="cpu", role="prefill"), NODE, transfers=meeting)
        processes = ReplicaProcesses(tmp_path / "none", [start], {}, "prefill worker")
    with processes:
        wait(processes.sentinels)
        with socket.create_server(where) as other:
            history, _ = watched(processes, transfers=host_and_port(HOST, other), until=given_up)
    assert history.restarts == 0
    (words,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert words.startswith("no process: ")
    assert words.endswith(f": prefill worker {URL} is left as it is after 2 attempts")
    assert "in use" in words


def test_without_the_others_that_are_needed_none_is_started_anew(tmp_path: Path) -> None:
    with ReplicaProcesses(tmp_path / "none", [START], {}) as processes:
        history, _ = watched(processes, needed=1, until=lambda _, stopped: bool(stopped))
    assert history.restarts == 0
    assert not history.given_up
