"""Replicas that end again and again, as processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.parallel.seat import Node
from upcurve.engine.serve.announcement import Announcement
from upcurve.engine.serve.router import restarts as module
from upcurve.engine.serve.router.replica import Replica
from upcurve.engine.serve.router.replica_process import ReplicaProcesses, Start
from upcurve.engine.serve.router.restarts import Restarts

START = Start(EngineOptions(device="cpu"), Node(0, 1, 1, "127.0.0.1", 0))


def watched(folder: Path, needed: int, until: Callable[[Replica, list[bool]], bool]) -> Replica:
    """Watch a replica that ends before it serves, because there is no such model."""
    replica = Replica.at("http://127.0.0.1:9")
    stopped: list[bool] = []

    async def main() -> None:
        with ReplicaProcesses(folder / "none", [START], {}) as processes:
            # As if it had served.
            processes.announcements = [Announcement("server", replica.url, "none", None, None)]
            restarts = Restarts(
                *(processes, [replica]),
                needed=needed,
                joined=False,
                stop=lambda: stopped.append(True),
            )
            async with asyncio.timeout(300):
                while not until(replica, stopped):
                    await asyncio.sleep(0.02)
            restarts.close()

    asyncio.run(main())
    return replica


def test_one_that_ends_too_often_in_a_row_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "DELAYS_SECONDS", (0.0, 0.1))
    caplog.set_level("INFO")
    replica = watched(tmp_path, 0, lambda replica, _: replica.given_up)
    assert replica.restarts == 2
    said = [each.getMessage() for each in caplog.records]
    assert [line.partition(": replica")[2][-5:] for line in said if "anew" in line] == [
        *("n 0 s", "0.1 s"),
    ]
    assert sum("is not a folder" in line for line in said) == 2
    assert said[-1] == "replica 0: exit code 2: replica http://127.0.0.1:9 is left as it is"


def test_that_no_process_can_be_started_is_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "DELAYS_SECONDS", (0.0, 0.0))

    def full(*_: object) -> None:
        raise OSError("out of files")

    monkeypatch.setattr(ReplicaProcesses, "restart", full)
    replica = watched(tmp_path, 0, lambda replica, _: replica.given_up)
    assert replica.restarts == 0
    assert "no process: out of files: replica http://127.0.0.1:9 is left as it is" in caplog.text


def test_without_the_others_that_are_needed_none_is_started_anew(tmp_path: Path) -> None:
    replica = watched(tmp_path, 1, lambda _, stopped: bool(stopped))
    assert replica.restarts == 0
    assert not replica.given_up
