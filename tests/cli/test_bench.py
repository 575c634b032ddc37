from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys

import pytest

from upcurve.cli import run
from upcurve.load.known_server import Behaviour, Fault, known_server_process
from upcurve.load.trace import from_table
from upcurve.records.store import Store

KEY = "sk-verysecretkey123"


@pytest.fixture(scope="module")
def server():
    """Return the URL of a quick server that wants a key."""
    # Tokens that a busy client reads all at once have no pace.
    behaviour = Behaviour(first_ms=5, interval_ms=20, api_key=KEY)
    with known_server_process(behaviour) as (base_url, _):
        yield base_url


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("UPCURVE_API_KEY", KEY)


def bench(capsys, *arguments, **options):
    """Run the command; return exit code, stdout, stderr."""
    given = {"model": "known", "isl": 16, "osl": 4, "concurrency": "2"} | options
    words = [
        word
        for name, value in given.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    with pytest.raises(SystemExit) as stopped:
        run(["bench", *words, *arguments])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def statuses(store):
    """Return the status of every run of a store, as anybody's SQLite would read it."""
    connection = sqlite3.connect(store / "store.sqlite")
    try:
        return [status for (status,) in connection.execute("select status from runs")]
    finally:
        connection.close()


def test_json_is_one_object_per_point(capsys, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = bench(
        capsys, "--json", base_url=server, concurrency="1,3", repeats=2, requests_per_stream=3
    )
    points = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(each["repeat"], each["concurrency"]) for each in points] == [
        (0, 1), (0, 3), (1, 1), (1, 3),
    ]  # fmt: skip
    assert [each["requests"] for each in points] == [3, 9, 3, 9]
    first = points[0]
    assert {
        "concurrency", "isl", "osl", "requests", "failed", "duration_s", "steady_state",
        "tput_per_gpu", "input_tput_per_gpu", "output_tput_per_gpu", "interactivity",
        "output_length_ok", "chunk_coalescing",
    } <= first.keys()  # fmt: skip
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
        assert {"mean", "p50", "p90", "p99"} <= first[name].keys()
        assert first[name]["p90"] is None
    assert {"lag_p99_ms", "cpu_s", "saturated"} <= first["client"].keys()
    assert {"start_s", "end_s"} <= first["steady_state"].keys()
    assert (first["isl"], first["osl"], first["output_length_ok"]) == (16, 4, True)
    assert "concurrency 3, repeat 2 of 2: " in err
    assert list(tmp_path.iterdir()) == []  # without --series nothing is stored


def test_the_table(capsys, server):
    code, out, _ = bench(capsys, base_url=server, concurrency="1,2", gpus=2)
    assert code == 0
    assert "TTFT" in out
    rows = [line.replace("│", " ").split() for line in out.splitlines() if line.startswith("│")]
    # A star marks what a busy client measured.
    found = [(row[0].rstrip("*"), row[-2], row[-1]) for row in rows]
    assert found == [("1", "4", "0"), ("2", "8", "0")]


def test_points_are_kept_with_what_they_were_measured_with(capsys, server, tmp_path):
    store = tmp_path / "store"
    code, _, err = bench(
        capsys, base_url=server, concurrency="1,2", repeats=2, series="mine", tp=2, ep=4, dp=2,
        hardware="H200", precision="fp8", seed=7, store=store, warmup=3,
    )  # fmt: skip
    assert code == 0, err
    with Store.open(store, create=False) as opened:
        rows = list(opened.rows(["mine"]))
        points = opened.points("mine", 16, 4)
        (run_id,) = {each["run"] for each in rows}
        record, kept = opened.find_run(run_id)
        traces = [from_table(opened.trace(number)) for number in (1, 2, 3, 4)]
    assert sorted((each.concurrency, each.repeat) for each in points) == [
        (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    assert {(each.gpus, each.tp) for each in points} == {(4, 2)}
    assert {(each["ep"], each["dp"], each["prefill_gpus"]) for each in rows} == {(4, 2, None)}
    assert (record.source, record.hardware, record.precision) == ("bench", "H200", "fp8")
    assert record.recipe["workload"]["seed"] == 7
    assert record.host["name"]
    assert statuses(store) == ["complete"]
    for point, requests in zip(kept, traces, strict=True):
        assert point.result["concurrency"] == point.concurrency
        measured = [each for each in requests if not each.warm_up]
        assert len(measured) == point.requests == 4 * point.concurrency
        assert len(requests) - len(measured) == 3
        assert point.tput_per_gpu == pytest.approx(
            20 * len(measured) / point.result["duration_s"] / 4
        )
    with Store.open(store, create=False) as opened:
        assert [opened.telemetry(number).keys() for number in (1, 2)] == [{"server"}, {"server"}]
        assert opened.telemetry(1)["server"].num_rows > 0
    files = [path for path in store.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_the_seed_is_no_part_of_the_fingerprint_and_the_lengths_are(capsys, server, tmp_path):
    for options in ({"seed": 1}, {"seed": 2}, {"seed": 2, "isl": 17}):
        bench(capsys, base_url=server, series="mine", store=tmp_path, **options)
    with Store.open(tmp_path, create=False) as opened:
        same = opened.fingerprints("mine", 16, 4)
        other = opened.fingerprints("mine", 17, 4)
    assert len(same) == len(other) == 1
    assert same != other


def test_prefill_and_decode_apart_are_kept_as_they_are(capsys, server, tmp_path):
    layout = {"prefill_gpus": 2, "decode_gpus": 6, "tp": 2}
    code, _, err = bench(capsys, base_url=server, series="apart", store=tmp_path, **layout)
    assert code == 0, err
    with Store.open(tmp_path, create=False) as opened:
        (row,) = opened.rows(["apart"])
    assert (row["gpus"], row["prefill_gpus"], row["decode_gpus"], row["tp"]) == (8, 2, 6, 2)


def test_every_request_failed(capsys, tmp_path, server):
    refusing = Behaviour(first_ms=5, interval_ms=1, faults=(Fault("short", every=1),))
    with known_server_process(refusing) as (base_url, _):
        code, out, err = bench(capsys, base_url=base_url, series="mine", store=tmp_path)
    assert code == 1
    rows = [line.replace("│", " ").split() for line in out.splitlines() if line.startswith("│")]
    assert [row[-2:] for row in rows] == [["8", "8"]]
    assert "8 of 8 requests failed: short_output (2 tokens, 4 were asked for)" in err
    assert "is not kept" in err
    with Store.open(tmp_path, create=False) as opened:
        assert sum(each.points for each in opened.series()) == 0
    assert statuses(tmp_path) == ["failed"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "127.0.0.1:8000"}, "does not start with http://"),
        ({"base_url": "http://"}, "names no host"),
        ({"model": "other"}, "model: 'other' is not served"),
        ({"concurrency": "4,x"}, "'x' is not a positive whole number"),
        ({"concurrency": "4,4"}, "names a value twice"),
        ({"requests": 3, "concurrency": "2,4"}, "cannot fill 4 streams"),
        ({"requests": 9, "requests_per_stream": 2}, "exclude each other"),
        ({"vocabulary": "5"}, "no range of token ids"),
        ({"vocabulary": "9:5"}, "vocabulary: 9:5 is no range"),
        ({"isl": 1, "vocabulary": "0:9", "concurrency": "8"}, "isl: 32 distinct prompts"),
        ({"isl": 0}, "isl: '0' (0 is no length"),
        ({"isl": "uniform:2:8"}, "isl: 'uniform:2:8' (the ratio"),
        ({"goodput": "ttft=x"}, "goodput: "),
        ({"series": ""}, "'' is no name; give one line of text"),
        ({"series": "two\nlines"}, r"'two\nlines' is no name"),
        ({"search": "ttft<1s", "concurrency": "4"}, "--search needs two loads"),
        ({"rate": "5"}, "exclude each other"),
        ({"burstiness": 2}, "belong to an open loop"),
        ({"arrivals": "constant"}, "belong to an open loop"),
        ({"dataset_format": "jsonl"}, "belong to --dataset"),
        ({"endpoint": "chat"}, "endpoint: chat takes text"),
        ({"save": "x.txt"}, "ends in none of"),
        ({"dataset": "nowhere.jsonl"}, "exclude each other"),
        ({"isl": None}, "--isl"),
        ({"tp": 4, "gpus": 2}, "does not fit"),
        ({"ep": 4, "tp": 2}, "gpus: tp 2, ep 4, dp 1 does not fit on 2; correct one"),
        ({"prefill_gpus": 4}, "gpus: those of prefill and of decode are there one without the"),
        ({"prefill_gpus": 4, "decode_gpus": 8, "gpus": 8}, "gpus: 4 of prefill and 8 of decode ar"),
        ({"series": "mine", "osl": 1}, "--osl 2 or more"),
        ({"api_key": "wrong"}, "api-key"),
    ],
)
def test_bad_input_is_one_line(capsys, server, options, says):
    code, out, err = bench(capsys, **({"base_url": server} | options))
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert KEY not in err


def test_nobody_listens(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, out, err = bench(capsys, base_url=f"http://127.0.0.1:{port}")
    assert (code, out) == (2, "")
    assert err == (
        f"upcurve: error: base-url: no server answers at http://127.0.0.1:{port}; "
        "start the server or correct the URL\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_stays_after_an_interrupt(number, tmp_path):
    slow = Behaviour(first_ms=1, interval_ms=300)
    with known_server_process(slow) as (base_url, _):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "upcurve", "bench", "--base-url", base_url),
                *("--model", "known", "--isl", "8", "--osl", "2", "--concurrency", "1"),
                *("--requests", "1", "--repeats", "1000", "--series", "mine"),
                *("--store", str(tmp_path), "--json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        first = process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert json.loads(first)["repeat"] == 0
    assert process.returncode == 130
    assert err.splitlines()[-1] == "upcurve: interrupted"
    with Store.open(tmp_path, create=False) as opened:
        rows = list(opened.rows(["mine"]))
    assert rows
    assert statuses(tmp_path) == ["interrupted"]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(["bench", "--help"])
    assert stopped.value.code == 0
    assert "upcurve bench --base-url" in capsys.readouterr().out
