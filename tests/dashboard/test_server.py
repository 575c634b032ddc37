"""The command: it starts, says where it is, streams what others write, and ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.records.examples import point_record, run_record
from upcurve.cli import run
from upcurve.records.store import Store

COMMAND = [sys.executable, "-m", "upcurve", "dashboard"]


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Return the URL and the process of a dashboard over a store that is not there yet."""
    command = [*COMMAND, "--json", "--port", "0", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    told = json.loads(process.stdout.readline())
    assert told["writes"] is False
    yield told["url"], process
    if process.poll() is None:
        process.kill()
    process.communicate()


def events(stream: httpx.Response) -> Iterator[dict[str, object]]:
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_points_that_another_process_writes_appear_and_ctrl_c_ends_it(
    dashboard: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    url, process = dashboard
    with (
        httpx.Client(timeout=60) as client,
        client.stream("GET", f"{url}api/v1/events") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = events(stream)
        assert next(told)["points"] == []
        writer = (
            "import sys; from upcurve.records.store import Store\n"
            "from tests.records.examples import point_record, run_record\n"
            "with Store.open(sys.argv[1]) as store:\n"
            "    run = store.begin_run(run_record())\n"
            "    print(run, store.add_point(run, point_record()))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", writer, str(tmp_path / "store")],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        run_id, point = done.stdout.split()
        seen: list[object] = []
        for event in told:
            seen += [each["id"] for each in event["points"]]  # type: ignore[attr-defined]
            if seen:
                break
        assert seen == [int(point)]
        assert client.get(f"{url}api/v1/runs/{run_id}").json()["points"][0]["id"] == int(point)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_an_event_tells_of_runs_under_way(tmp_path: Path) -> None:
    """In this process: the store says that a run is under way while its process lives."""
    from upcurve.dashboard.events import Feed
    from upcurve.dashboard.reader import Reader

    with Store.open(tmp_path) as store:
        run_id = store.begin_run(run_record())
        store.add_point(run_id, point_record())
        feed = Feed(Reader(store))
        event = feed._event(0)
        assert [each.id for each in event.running] == [run_id]
        assert [each.run for each in event.points] == [run_id]
        store.end_run(run_id, "complete")
        assert feed._event(event.points[0].id).running == []


def test_a_port_in_use_and_a_foreign_address_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for options, words in (
            (["--port", str(taken.getsockname()[1])], "give another --port, or 0 for a free one"),
            (["--host", "203.0.113.1"], "203.0.113.1"),
            (["--token", " "], "give a long random text, or none"),
        ):
            with pytest.raises(SystemExit) as ended:
                run(["dashboard", "--store", str(tmp_path), *options])
            out, err = capsys.readouterr()
            assert (ended.value.code, out) == (2, "")
            assert words in err
            assert len(err.splitlines()) == 1
