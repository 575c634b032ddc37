"""Whole sweeps of a small engine in real processes: order, failures, resuming, no orphans."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from tests.processes import gone, until
from tests.sweep.examples import recipe, recipe_file
from upcurve.errors import InputError
from upcurve.records.store import Store
from upcurve.sweep.plan import Launch
from upcurve.sweep.result import Failure, Measured, SweepResult
from upcurve.sweep.runner import run_sweep


class Log:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.runs: list[str] = []

    def planned(self, launches: Sequence[Launch]) -> None:
        self.events.append(("planned", len(launches)))

    def launching(self, launch: Launch, run_id: str) -> None:
        self.runs.append(run_id)
        self.events.append(("launching", launch.recipe.name, launch.round))

    def ready(self, launch: Launch, seconds: float) -> None:
        assert seconds > 0
        self.events.append(("ready", launch.recipe.name))

    def measuring(self, launch: Launch, concurrency: int) -> None:
        self.events.append(("measuring", concurrency))

    def request_ended(self, launch: Launch, ended: int, of: int) -> None:
        self.events.append(("ended", ended, of))

    def measured(self, measured: Measured) -> None:
        self.events.append(("measured", measured.point.concurrency))

    def failed(self, failure: Failure) -> None:
        self.events.append(("failed", failure.concurrency, failure.lost))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def sweep(store: Store, *recipes: Any, resume: bool = False) -> tuple[SweepResult, Log]:
    log = Log()
    return run_sweep(recipes, store, resume=resume, progress=log), log


def statuses(folder: Path) -> list[tuple[str, str | None]]:
    engine = sa.create_engine(f"sqlite:///{folder}/store.sqlite")
    with engine.connect() as connection:
        query = sa.text("SELECT status, note FROM runs ORDER BY started_at, id")
        found = [(row.status, row.note) for row in connection.execute(query)]
    engine.dispose()
    return found


def test_every_point_of_every_round_is_stored_with_its_trace(store: Store, tmp_path: Path) -> None:
    result, log = sweep(store, recipe())
    assert [(each.point.concurrency, each.point.repeat) for each in result.points] == [
        *[(1, 0), (2, 0)],
        *[(1, 1), (2, 1)],
    ]
    assert not result.failures
    points = store.points("small")
    assert [(each.concurrency, each.repeat) for each in points] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    for point in points:
        assert point.interactivity > 0
        assert point.tput_per_gpu > 0
    assert statuses(tmp_path / "store") == [("complete", None)] * 2
    assert [each for each in log.events if each[0] != "ended"][:6] == [
        ("planned", 2),
        ("launching", "small", 0),
        ("ready", "small"),
        *[("measuring", 1), ("measured", 1)],
        ("measuring", 2),
    ]
    ended = [each[1:] for each in log.events if each[0] == "ended"]
    # Looked at a few times a second: ever more have ended, at last all.
    assert {each for each in ended if each[0] == each[1]} == {(3, 3), (6, 6)}
    assert all(0 <= done <= of for done, of in ended)
    for number, concurrency in enumerate((1, 2, 1, 2), start=1):
        assert store.trace(number).num_rows >= 2 * concurrency
    for run_id in log.runs:
        found = store.find_run(run_id)
        assert found is not None
        assert found[0].recipe["name"] == "small"
        assert store.log_path(run_id).is_file()


def test_an_engine_that_inherits_a_key_is_asked_with_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPCURVE_API_KEY", "sk-inherited-secret")
    result, _ = sweep(store, recipe(repeats=1))
    assert (len(result.points), result.failures) == (2, [])
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files
    assert not any(b"sk-inherited-secret" in path.read_bytes() for path in files)


def test_each_launch_is_a_fresh_engine(store: Store, tmp_path: Path) -> None:
    note = tmp_path / "note"
    sweep(store, recipe("--note", note))
    seen = [line.split()[0] for line in note.read_text().splitlines()]
    assert len(set(seen)) == 2
    assert seen == sorted(seen, key=seen.index)
    assert gone([int(pid) for pid in set(seen)])


def test_an_engine_that_dies_at_a_point_costs_what_is_left_of_its_launch(
    store: Store, tmp_path: Path
) -> None:
    # Request 5 is the first of concurrency 2: a probe, a warm-up and 2 measured ones go before.
    dying = recipe("--die-after", 5, name="dying", concurrency=[1, 2, 4])
    result, _ = sweep(store, dying, recipe(name="well"))
    assert [(f.concurrency, f.lost, f.launch.round) for f in result.failures] == [
        (2, (2, 4), 0),
        (2, (2, 4), 1),
    ]
    problem = result.failures[0].problem
    assert problem.startswith("the engine failed: it ended with status 7; its last lines (")
    assert problem.endswith("illegal memory access")
    assert [(each.concurrency, each.repeat) for each in store.points("dying")] == [(1, 0), (1, 1)]
    assert len(store.points("well")) == 4
    ends = statuses(tmp_path / "store")
    assert [status for status, _ in ends] == ["failed", "complete", "complete", "failed"]
    assert "illegal memory access" in (ends[0][1] or "")


def test_an_engine_that_does_not_start_costs_its_launch(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such checkpoint {model} {port}')"]
    broken = recipe(name="broken", engine={"name": "test", "command": command})
    result, _ = sweep(store, broken, recipe(name="well", repeats=1))
    assert [(f.concurrency, f.lost) for f in result.failures] == [(None, (1, 2))] * 2
    assert "no such checkpoint small" in result.failures[0].problem
    assert len(store.points("well")) == 2
    assert sorted(status for status, _ in statuses(tmp_path / "store")) == [
        *["complete", "failed", "failed"]
    ]


def test_a_point_whose_requests_all_fail_is_not_stored_and_the_next_one_is_tried(
    store: Store,
) -> None:
    failing = recipe("--fail-after", 5, repeats=1)
    result, _ = sweep(store, failing)
    assert [each.point.concurrency for each in result.points] == [1]
    assert [(f.concurrency, f.lost) for f in result.failures] == [(2, (2,))]
    assert "500" in result.failures[0].problem


def test_an_engine_that_refuses_what_is_asked_is_not_launched_for_the_other_rounds(
    store: Store,
) -> None:
    other = recipe("--serves", "another", name="other", repeats=3)
    result, log = sweep(store, other, recipe(name="well", repeats=1))
    assert [(f.lost, f.refused, f.launch.round) for f in result.failures] == [
        ((1, 2), True, 0),
        ((1, 2), False, 1),
        ((1, 2), False, 2),
    ]
    assert "is not served" in result.failures[0].problem
    assert result.failures[1].problem == "not launched, because round 1 was refused"
    assert [each for each in log.events if each[0] == "launching"] == [
        ("launching", "other", 0),
        ("launching", "well", 0),
    ]
    assert len(store.points("well")) == 2


def test_an_engine_that_hangs_costs_the_point_after_its_timeout(store: Store) -> None:
    load = {"isl": 8, "osl": 4, "requests_per_stream": 2, "timeout_s": 3}
    result, _ = sweep(store, recipe("--hang-at", 5, repeats=1, workload=load))
    assert [each.point.concurrency for each in result.points] == [1]
    assert [(f.concurrency, f.lost) for f in result.failures] == [(2, (2,))]
    assert "timeout: no end within 3 s" in result.failures[0].problem.replace(")", "")


def test_resume_measures_only_what_is_missing(store: Store) -> None:
    sweep(store, recipe(repeats=1))
    result, log = sweep(store, recipe(repeats=2, concurrency=[1, 2, 3]), resume=True)
    assert result.skipped == 2
    assert [(each.point.concurrency, each.point.repeat) for each in result.points] == [
        *[(3, 0), (1, 1), (2, 1), (3, 1)]
    ]
    assert len(log.runs) == 2
    again, log = sweep(store, recipe(repeats=2, concurrency=[1, 2, 3]), resume=True)
    assert (again.skipped, again.points, log.runs) == (6, [], [])


def test_resume_does_not_take_the_points_of_another_build(store: Store) -> None:
    sweep(store, recipe(repeats=1))
    result, _ = sweep(store, recipe("--token-ms", 21, repeats=1), resume=True)
    assert (result.skipped, len(result.points)) == (0, 2)


def test_without_resume_everything_is_measured_again(store: Store) -> None:
    sweep(store, recipe(repeats=1))
    sweep(store, recipe(repeats=1))
    assert [(each.concurrency, each.repeat) for each in store.points("small")] == [
        *[(1, 0), (2, 0), (1, 1), (2, 1)]
    ]


def test_a_program_that_is_not_there_is_bad_input_before_anything_starts(
    store: Store, tmp_path: Path
) -> None:
    engine = {"name": "test", "command": ["no-such-engine", "{port}"]}
    with pytest.raises(InputError, match="there is no program 'no-such-engine'"):
        sweep(store, recipe(), recipe(engine=engine))
    assert statuses(tmp_path / "store") == []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Give a function that starts a sweep whose engine hangs at concurrency 2."""
    processes: list[int] = []

    def start(
        *flags: object, prefix: Sequence[str] = ()
    ) -> tuple[subprocess.Popen[str], list[int]]:
        note = tmp_path / "note"
        path = recipe_file(tmp_path / "small.yaml", "--note", note, *flags)
        command = ["sweep", str(path), "--store", str(tmp_path / "store"), "--json"]
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "upcurve", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert until(lambda: note.exists() and len(note.read_text().splitlines()) >= 5)
        engine = int(note.read_text().split()[0])
        guard = psutil.Process(engine).ppid()
        processes.extend([process.pid, guard, engine])
        return process, [guard, engine]

    yield start
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_sweep_keeps_its_points_and_leaves_no_process(
    number: signal.Signals,
    running: Callable[..., tuple[subprocess.Popen[str], list[int]]],
    tmp_path: Path,
) -> None:
    process, pids = running("--hang-at", 5)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert len(output.splitlines()) == 1
    if number != signal.SIGKILL:
        assert errors.splitlines()[-1] == "upcurve: interrupted"
        assert statuses(tmp_path / "store") == [("interrupted", "stopped by the user")]
    assert until(lambda: gone(pids))
    with Store.open(tmp_path / "store") as store:
        assert [(p.concurrency, p.repeat) for p in store.points("small")] == [(1, 0)]
        assert statuses(tmp_path / "store")[0][0] == "interrupted"


def test_sigterm_counts_where_ctrl_c_is_ignored_as_in_the_background_of_a_script(
    running: Callable[..., tuple[subprocess.Popen[str], list[int]]], tmp_path: Path
) -> None:
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    process, pids = running("--hang-at", 5, prefix=ignoring)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert gone(pids)
    assert statuses(tmp_path / "store") == [("interrupted", "stopped by the user")]
