"""What `upcurve bench` does beside a closed loop of exact lengths."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pyarrow.parquet
import pytest

from upcurve.cli import run
from upcurve.load import verdict
from upcurve.load.known_server import Behaviour, Fault, known_server_process
from upcurve.load.limits import Limits, Machine
from upcurve.records.store import Store

# Tokens that a busy client reads all at once have no pace.
FAST = Behaviour(first_ms=5, interval_ms=20)


@pytest.fixture(scope="module")
def server():
    with known_server_process(FAST) as (base_url, _):
        yield base_url


def bench(capsys, base_url, *words):
    """Run the command; return exit code, the JSON objects it printed, stderr."""
    with pytest.raises(SystemExit) as stopped:
        run(["bench", "--base-url", base_url, "--model", "known", "--json", *map(str, words)])
    captured = capsys.readouterr()
    return (
        stopped.value.code,
        [json.loads(line) for line in captured.out.splitlines()],
        captured.err,
    )


LENGTHS = ("--isl", 16, "--osl", 8)


def test_an_open_loop(capsys, server):
    code, points, err = bench(capsys, server, *LENGTHS, "--rate", "50,100", "--requests", 20)
    assert code == 0, err
    assert [each["rate"] for each in points] == [50, 100]
    assert [each["requests"] for each in points] == [20, 20]
    assert {"p50", "p99"} <= points[0]["dispatch_delay_ms"].keys()
    assert "rate 50/s: " in err


def test_rates_of_one_series_are_all_kept_and_resumed(capsys, server, tmp_path):
    words = (*LENGTHS, "--requests", 8, "--series", "mine", "--store", tmp_path)
    assert bench(capsys, server, *words, "--rate", "80,90")[0] == 0
    code, points, err = bench(capsys, server, *words, "--rate", "80,90,100", "--resume")
    assert code == 0, err
    assert [each["rate"] for each in points] == [100]
    assert "rate 80/s: measured before" in err
    with Store.open(tmp_path, create=False) as store:
        (fingerprint,) = store.fingerprints("mine")
        kept = [figures["rate"] for _, figures in store.results(fingerprint, "mine")]
    assert sorted(kept) == [80, 90, 100]


def test_a_duration_bounds_a_point(capsys, server):
    code, (point,), _ = bench(
        capsys, server, *LENGTHS, "--duration", 2, "--concurrency", 2, "--ramp", 0.1
    )
    assert code == 0
    # The first request of a busy machine is late, and so is its last one.
    assert 0.5 < point["duration_s"] < 30
    assert point["requests"] > 2


def test_the_highest_load_within_limits(capsys, tmp_path):
    # Four slots: a fifth stream waits for a whole answer, about 260 ms.
    words = (
        *("--isl", 16, "--osl", 64, "--search", "ttft<150ms", "--concurrency", "3,16"),
        *("--requests", 16, "--series", "edge", "--store", tmp_path),
    )
    with known_server_process(Behaviour(first_ms=5, interval_ms=4, slots=4)) as (server, _):
        code, lines, err = bench(capsys, server, *words)
        resumed, again, said = bench(capsys, server, *words, "--resume")
    assert code == 0, err
    *points, found = lines
    assert found["search"]["unit"] == "streams"
    assert 4 <= found["search"]["answer"] < 16
    tried = [each["concurrency"] for each in points]
    assert len(set(tried)) == len(tried) <= 8
    assert (resumed, again) == (0, [found]), said  # nothing is measured twice


def test_no_load_keeps_the_limits(capsys, server):
    words = (*LENGTHS, "--search", "ttft<0.001ms", "--concurrency", "1,8")
    code, lines, _ = bench(capsys, server, *words)
    assert code == 1
    assert lines[-1]["search"]["answer"] is None
    assert len(lines) == 2


def test_files(capsys, server, tmp_path):
    names = [tmp_path / f"points.{ending}" for ending in ("json", "csv", "parquet")]
    words = [word for name in names for word in ("--save", name)]
    code, points, err = bench(capsys, server, *LENGTHS, "--concurrency", "1,2", *words)
    assert code == 0, err
    assert json.loads(names[0].read_text()) == points
    rows = list(csv.DictReader(names[1].open()))
    assert [float(row["ttft_ms.p50"]) for row in rows] == [
        each["ttft_ms"]["p50"] for each in points
    ]
    table = pyarrow.parquet.read_table(names[2]).to_pydict()
    assert len(table["load"]) == sum(each["requests"] for each in points) + 3  # the warm-up
    assert set(table["load"]) == {1.0, 2.0}
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(each.name for each in names)


def test_strict_refuses_a_point_of_a_busy_client(capsys, server, tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "LAG_LIMIT_MS", -1.0)
    words = (*LENGTHS, "--concurrency", 1, "--series", "mine", "--store", tmp_path)
    code, (point,), err = bench(capsys, server, *words)
    assert (code, point["client"]["trusted"]) == (0, False)
    assert "not to be trusted: event loop" in err
    code, (point,), err = bench(capsys, server, *words, "--strict")
    assert (code, point["client"]["marks"][0]["kind"]) == (1, "loop_lag")
    assert "strict: marked points are refused" in err
    with Store.open(tmp_path, create=False) as store:
        assert len(store.points("mine")) == 1


def test_every_point_carries_the_calibration(capsys, server, tmp_path, monkeypatch):
    monkeypatch.setenv("UPCURVE_CALIBRATION", str(tmp_path / "c.json"))
    limits = Limits(Machine.this(1), "2026-11-23T10:00:00+00:00", 10.0, 64)
    limits.save(tmp_path / "c.json")
    words = (*LENGTHS, "--concurrency", 1, "--workers", 1, "--strict")
    code, (point,), err = bench(capsys, server, *words)
    assert code == 1  # more than 5 chunks/s
    assert point["client"]["calibration"]["chunks_per_s"] == 10
    assert "client_load" in [each["kind"] for each in point["client"]["marks"]]
    assert "of its calibrated limit" in err
    assert "not calibrated" not in err


def test_points_of_a_dataset_take_turns(capsys, tmp_path):
    file = tmp_path / "d.jsonl"
    rows = [{"prompt": f"{n} word", "max_tokens": 2} for n in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    with known_server_process(FAST) as (base_url, served):
        words = ("--dataset", file, "--concurrency", "1,2", "--requests-per-stream", 4)
        assert bench(capsys, base_url, *words, "--repeats", 2)[0] == 0
    # Points of 4 and 8 requests, twice, after warm-ups of 1 and 2.
    measured = [
        each.prompt_digest
        for first, count in ((1, 4), (7, 8), (16, 4), (22, 8))
        for each in served[-30:][first : first + count]
    ]
    assert len(set(measured)) == len(measured) == 24


def test_a_server_that_lies_is_accounted_for_to_the_request(capsys):
    faults = (Fault("http_500", every=9), Fault("cut", every=7), Fault("short", every=5))
    with known_server_process(replace(FAST, faults=faults)) as (base_url, served):
        words = (*LENGTHS, "--concurrency", 4, "--requests", 60)
        code, (point,), err = bench(capsys, base_url, *words)
    done = [each.fault for each in served[-60:]]
    assert code == 0
    assert point["failures"] == {
        "cut": done.count("cut"),
        "http_5xx": done.count("http_500"),
        "short_output": done.count("short"),
    }
    assert min(point["failures"].values()) > 0
    assert point["ttft_ms"]["count"] == done.count(None)
    assert f"{done.count('cut')} of 60 requests failed: cut" in err


def test_help_fits_and_all_of_it_is_there(capsys):
    texts = []
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            run(["bench", flag])
        texts.append(capsys.readouterr().out)
    usual, everything = texts
    assert usual.count("\n") <= 50
    assert "--burstiness" not in usual
    for name in ("--burstiness", "--shared-prefix", "--gpu-index", "--concurrency", "--calibrate"):
        assert name in everything
