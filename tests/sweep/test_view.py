"""What a person sees of a sweep."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from tests.sweep.examples import recipe
from upcurve.accuracy.evaluation import Asked
from upcurve.records.run import PointRecord
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch, plan
from upcurve.sweep.result import Failure, Measured
from upcurve.sweep.summary import summary
from upcurve.sweep.view import LiveView, PlainLines


def launches(**changes: Any) -> list[Launch]:
    recipes = [recipe(**changes)]
    return plan(recipes, run_records(recipes, Machine({}, [], {})), [{(1, 1, 1, 1, 0, 2, 8, 4, 1)}])


def measured(launch: Launch, concurrency: int, tput: float, **changes: Any) -> Measured:
    facts: dict[str, Any] = {
        "isl": 8,
        "osl": 4,
        "tp": 1,
        "gpus": 1,
        "concurrency": concurrency,
        "measured_at": datetime.now(UTC),
        "tput_per_gpu": tput,
        "interactivity": tput / 4,
        "ttft_ms": 12.34,
        "failed": 0,
        "repeat": launch.round,
    }
    return Measured(launch, "run-1", PointRecord(**(facts | changes)))


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, height=30)


def text(of: Console) -> str:
    file = of.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_plain_lines_say_each_event_once() -> None:
    screen, todo = console(), launches()
    view = PlainLines(screen)
    view.planned(todo)
    view.launching(todo[0], "run-1")
    view.ready(todo[0], 3.21)
    view.measuring(todo[0], 1)
    view.measured(measured(todo[0], 1, 100.0))
    problem = "the engine failed: it ended with status 3"
    view.failed(Failure(todo[0], "run-1", 2, problem, (2, 4)))
    lines = text(screen).splitlines()
    assert lines[:4] == [
        "upcurve: 3 points in 2 launches; 1 measured already",
        "upcurve: small, round 1 of 2: launching the engine, run run-1",
        "upcurve: small, round 1 of 2: ready after 3.2 s",
        "upcurve: small, round 1 of 2: concurrency 1 ...",
    ]
    assert lines[4].startswith(
        "upcurve: small, round 1 of 2: concurrency 1: 100.0 tok/s/GPU, 25.00 tok/s/user, "
        "TTFT 12.3 ms, 0 failed (1 of 3, about "
    )
    assert lines[5] == (
        "upcurve: error: small, round 1 of 2, concurrency 2 (not measured: 2, 4): " + problem
    )


def test_a_long_line_is_not_broken() -> None:
    screen = console()
    PlainLines(screen).failed(Failure(launches()[0], "run-1", None, "x" * 500, (1, 2)))
    assert len(text(screen).splitlines()) == 1


def test_brackets_of_a_log_are_no_markup() -> None:
    for screen in (console(), console(terminal=True)):
        with LiveView(screen) if screen.is_terminal else PlainLines(screen) as view:
            view.failed(Failure(launches()[0], "run-1", None, "[bold]list[0][/x]", (1,)))
        assert "[bold]list[0][/x]" in text(screen)


def test_warnings_of_the_load_client_are_shown() -> None:
    point = measured(launches()[0], 4, 100.0, result={"warnings": ["[x] the client was busy"]})
    for screen in (console(), console(terminal=True)):
        with LiveView(screen) if screen.is_terminal else PlainLines(screen) as view:
            view.measured(point)
        line = "upcurve: warning: small, round 1 of 2, concurrency 4: [x] the client was busy"
        assert line in text(screen)


JUDGED = {
    "task": "problems",
    "metric": "strict",
    "score": 0.93125,
    "interval": [0.92, 0.94],
    "n": 2000,
    "passed": True,
    "why": "because",
}


def test_a_gate_is_followed_and_told() -> None:
    launch = launches()[0]
    for screen in (console(), console(terminal=True)):
        with LiveView(screen) if screen.is_terminal else PlainLines(screen) as view:
            view.launching(launch, "run-1")
            view.evaluating(launch, 4, Asked(500, 2000, 500, 20.0))
            if isinstance(view, LiveView):
                view.refresh()
            view.evaluated(GateOutcome(launch, "run-1", 4, JUDGED))
            view.evaluated(GateOutcome(launch, "run-1", 4, JUDGED | {"passed": False}, True))
        shown = text(screen)
        line = "accuracy: small, concurrency 4: problems strict 0.9313 [0.9200, 0.9400] of 2,000"
        assert f"upcurve: {line}: passed, because" in shown
        assert "concurrency 4 (an earlier sweep): problems" in shown
        assert "FAILED, because" in shown
        if screen.is_terminal:
            assert "accuracy at c4, 500 of 2,000 items, about 60 s left" in shown


def test_the_live_view_fills_a_table() -> None:
    screen, todo = console(terminal=True), launches()
    with LiveView(screen) as view:
        view.planned(todo)
        view.launching(todo[0], "run-1")
        view.ready(todo[0], 3.21)
        view.measuring(todo[0], 1)
        view.request_ended(todo[0], 3, 10)
        view.measured(measured(todo[0], 1, 100.0, ttft_ms=None))
        view.measuring(todo[0], 2)
        view.request_ended(todo[0], 7, 20)
        view.refresh()
    shown = text(screen)
    assert "3 points in 2 launches" in shown
    assert "tok/s/user" in shown
    assert "25.00" in shown
    assert "1 of 3, about " in shown
    assert "measuring concurrency 2, 7 of 20 requests" in shown


def test_the_summary_has_medians_and_spread_of_repeats() -> None:
    first, second = launches()
    slow = {"warnings": ["the client was too busy"]}
    points = [
        *[measured(first, 2, 150.0, failed=1, result=slow), measured(first, 1, 100.0)],
        *[measured(second, 1, 110.0), measured(second, 1, 104.0)],
    ]
    screen = console()
    screen.print(summary(points))
    head, *rows = [line.split() for line in text(screen).splitlines() if "s" in line]
    assert " ".join(head) == (
        "series concurrency tok/s/GPU tok/s/user TTFT failed repeats spread warnings"
    )
    assert rows == [
        ["small", "1", "104.0", "26.00", "12.3", "ms", "0", "3", "9.6", "%", "0"],
        ["small", "2", "150.0", "37.50", "12.3", "ms", "1", "1", "-", "1"],
    ]


def test_the_summary_has_a_row_for_each_layout() -> None:
    launch = launches()[0]
    layouts: list[dict[str, Any]] = [{}, {"ep": 2}, {"dp": 2}, {"prefill_gpus": 1}]
    points = [measured(launch, 1, 100.0 + n, gpus=2, **each) for n, each in enumerate(layouts)]
    screen = console()
    screen.print(summary(points))
    head, *rows = [
        line.split() for line in text(screen).splitlines() if "s" in line or "ms" in line
    ]
    assert head[:6] == ["series", "ep", "dp", "gpus", "prefill", "GPUs"]
    assert [each[:7] for each in rows] == [
        ["small", "1", "1", "2", "0", "1", "100.0"],
        ["small", "1", "1", "2", "1", "1", "103.0"],
        ["small", "1", "2", "2", "0", "1", "102.0"],
        ["small", "2", "1", "2", "0", "1", "101.0"],
    ]


def test_the_summary_leaves_out_what_says_nothing() -> None:
    point = measured(launches()[0], 64, 100.0, tp=8, gpus=8)
    screen = console()
    screen.print(summary([point]))
    head = text(screen).split("repeats")[0].split()
    assert head == ["series", "tp", "gpus", "concurrency", "tok/s/GPU", "tok/s/user", "TTFT"]
    assert "warnings" not in text(screen)
