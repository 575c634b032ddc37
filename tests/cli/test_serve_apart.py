"""`upcurve serve` with prefill and decode workers, as processes on loopback."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.test_serve import Process, post, refuse
from tests.cli.test_serve_layouts import (
    BODY,
    announced,
    checkpoint,
    command,
    expected,
    ready,
    tokens,
    wait_until_gone,
)
from tests.ports import free_port
from tests.processes import descendants
from upcurve.cli import run, serve_roles

__all__ = ["checkpoint", "expected"]


def get(running: Process, path: str) -> str:
    with urllib.request.urlopen(f"{running.url}{path}", timeout=60) as answer:
        return answer.read().decode()


def health(running: Process) -> dict[str, object]:
    return json.loads(get(running, "/health"))


def value(running: Process, name: str) -> float:
    """Return a metric, summed over replicas."""
    lines = [line for line in get(running, "/metrics").splitlines() if not line.startswith("#")]
    found = [line for line in lines if line.split("{")[0].split(" ")[0] == f"upcurve_{name}"]
    assert found, name
    return sum(float(line.split()[-1]) for line in found)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.05)


def kill(running: Process, helper: dict[str, Any], which: str, expected: list[int]) -> None:
    """Kill a prefill worker: it is started anew, and prompts then go through it again."""
    log, name = running.log, f"prefill worker {helper['transfers']}"
    askers = log.read_text().count(f"{name} is up")
    pid, how = {
        "http": (helper["pid"], "SIGKILL"),
        "engine": (helper["processes"]["engine"], "exit code 1"),
    }[which]
    psutil.Process(pid).kill()
    running.wait(f"prefill worker 0: {how}: prefill worker {helper['url']} is started anew in 1 s")
    # Wherever its prompt is computed meanwhile.
    assert tokens(running) == expected
    running.wait(f"prefill worker {helper['url']} serves again")
    until(lambda: log.read_text().count(f"{name} is up") >= 2 * askers, "found again")
    assert log.read_text().count(f"{name} is down: ") >= askers
    done, local = value(running, "transfers_done_total"), value(running, "local_prefills_total")
    assert [tokens(running) for _ in range(2)] == [expected] * 2
    assert value(running, "transfers_done_total") == done + 2
    assert value(running, "local_prefills_total") == local
    assert value(running, "prefill_worker_up") == askers
    # It serves HTTP where it did, and has begun to count anew.
    back = Process(running.process, log)
    back.url = helper["url"]
    until(lambda: value(back, "transfers_done_total") in (2, 3), "counted")


def test_one_command_for_a_whole_layout(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    options = ["--prefill-workers", "1", "--decode-workers", "2", "--check-memory", "--json"]
    with command(checkpoint, tmp_path / "log", *options) as running:
        ready(running)
        told = announced(running)
        assert (told["role"], told["layout"], told["model"]) == ("router", None, "mini")
        assert [each["role"] for each in told["workers"]] == ["prefill", "decode", "decode"]
        assert [tokens(running) for _ in range(4)] == [expected] * 4
        assert value(running, "transfers_done_total") == 4
        assert value(running, "local_prefills_total") == 0
        assert value(running, "prefill_worker_up") == 2
        kill(running, told["workers"][0], "http", expected)
        stream = post(running.url, {**BODY, "max_tokens": 15_000, "stream": True})
        assert stream.readline().startswith(b"data: ")
        all_of_them = descendants(running.process.pid)
        running.process.kill()
        wait_until_gone(all_of_them)
        assert "Traceback" not in running.log.read_text()


def test_workers_that_are_started_one_by_one(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    port = str(free_port())
    prefill = ["--role", "prefill", "--transfer-port", port]
    decode = ["--role", "decode", "--prefill", f"127.0.0.1:{port}"]
    with command(checkpoint, tmp_path / "decode", *decode) as running:
        ready(running)
        # It works without prefill workers, and says that there are none.
        assert health(running)["status"] == "degraded"
        assert tokens(running) == expected
        assert value(running, "local_prefills_total") == 1
        with command(checkpoint, tmp_path / "prefill", *prefill, "--json") as helper:
            ready(helper)
            told = announced(helper)
            assert (told["role"], told["transfers"]) == ("prefill", f"127.0.0.1:{port}")
            until(lambda: health(running)["status"] == "ok", "connected")
            assert tokens(running) == expected
            assert value(running, "transfers_done_total") == 1
            # It counts them a moment after it has said so.
            until(lambda: value(helper, "transfers_done_total") == 1, "counted")
            assert value(helper, "transfer_bytes_total") > 0
            with pytest.raises(urllib.error.HTTPError, match="421") as refused:
                post(helper.url, BODY)
            assert b"computes prompts for decode workers" in refused.value.read()
            words = refuse(checkpoint, *decode, "--page-size", "8", "--device", "cpu")
            assert "page size: 8 here, 16 at the other worker" in words
            helper.process.send_signal(signal.SIGTERM)
            assert helper.process.wait(60) == 0
        until(lambda: health(running)["status"] == "degraded", "told that it is gone")
        assert tokens(running) == expected
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert "Traceback" not in running.log.read_text()


def test_a_recipe_starts_what_a_sweep_would(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
name: apart
model: {checkpoint}
served_model_name: mini
hardware: CPU
prefill_gpus: 1
decode_gpus: 1
engine:
  name: upcurve
  command: >-
    upcurve serve {{model}} --host {{host}} --port {{port}} --device cpu --threads 1
    --context-length 64 --prefill-workers 1 --decode-workers 1 --decode-tp 2 --transfer copy
workload: {{isl: 8, osl: 8}}
concurrency: [1]
""",
        encoding="utf-8",
    )
    port = free_port()
    options = ["--port", str(port), "--json"]
    with command(recipe, tmp_path / "log", *options, recipe=True) as running:
        ready(running)
        told = announced(running)
        assert (told["role"], told["url"], told["pid"]) == (
            *("decode", running.url, running.process.pid),
        )
        assert list(told["processes"]) == ["engine", "rank 1"]
        (helper,) = told["workers"]
        assert (helper["role"], helper["layout"]["tp"]) == ("prefill", 1)
        assert running.url.endswith(f":{port}")
        assert tokens(running) == expected
        assert value(running, "transfers_done_total") == 1
        kill(running, helper, "engine", expected)
        log = running.log.read_text()
        assert [log.count(f"to decode rank {rank} use copy") for rank in (0, 1)] == [2, 2]
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0


def test_another_engine_of_a_recipe_has_no_json(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
name: other
model: none
hardware: CPU
engine: {name: other, command: "python -c pass --port {port} --host {host}"}
workload: {isl: 8, osl: 8}
concurrency: [1]
""",
        encoding="utf-8",
    )
    words = "json: the recipe's engine, other, prints no such line; leave it out, and ask its /heal"
    assert words in refuse("--recipe", recipe, "--json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--transfer", "tcp"], "transfer: it does nothing here; add --role prefill"),
        (["--transfer-port", "1"], "transfer-port: it does nothing here; add --role prefill"),
        (["--prefill", "a:1"], "prefill: it does nothing here; add --role decode"),
        (["--role", "decode"], "prefill: a decode worker needs some"),
        (["--role", "decode", "--prefill", "a"], "prefill: 'a' is no address"),
        (["--role", "decode", "--prefill", "a:1,a:1"], "prefill: an address stands there twice"),
        (["--role", "prefill", "--dp", "2"], "dp: a prefill or decode worker is one replica"),
        (["--prefill-workers", "1"], "decode-workers: it is missing"),
        (["--decode-tp", "2"], "decode-tp: it does nothing here"),
        (
            ["--prefill-workers", "1", "--decode-workers", "1", "--decode-tp", "3"],
            "ranks; the largest that fits is --decode-tp ",
        ),
        (["--decode-ep", "2"], "decode-ep: it does nothing here"),
        (
            [*("--prefill-workers", "1", "--decode-workers", "1"), "--decode-tp", "2", "--ep", "2"],
            "prefill-ep: 2 does not divide tp 1; give 1",
        ),
        (
            [*("--prefill-workers", "1", "--decode-workers", "1"), "--decode-ep", "3"],
            "decode-ep: 3 does not divide tp 1; give 1",
        ),
        (["--role", "prefill", "--prefill-workers", "1"], "role: a layout starts workers of both"),
        (["--recipe", __file__], "model: the recipe says it"),
        (
            ["--role", "prefill", "--transfer-port", "9", "--port", "9"],
            "transfer-port: it is --port as well",
        ),
        (["--role", "decode", "--prefill-timeout", "1"], "1.0 is not in the range x>=2"),
    ],
)
def test_options_that_do_not_go_together(checkpoint: Path, options: list[str], words: str) -> None:
    assert words in refuse(checkpoint, *options)


def test_nixl_that_is_not_installed_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve_roles, "NIXL_PACKAGES", ("no_such_package",))
    with pytest.raises(SystemExit) as ended:
        run(["serve", str(tmp_path), "--role", "prefill", "--transfer", "nixl"])
    assert ended.value.code == 2
    assert "transfer: NIXL is not installed; pip install" in capsys.readouterr().err
