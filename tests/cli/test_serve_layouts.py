"""`upcurve serve` over several ranks and replicas, as processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.test_serve import CONFIG, Process, post, refuse
from tests.ports import free_port
from tests.processes import descendants, gone, until
from upcurve.engine.model.checkpoint import write_checkpoint

OPTIONS = ["--port", "0", "--context-length", "20000", "--max-running-requests", "4"]
OPTIONS += ["--device", "cpu", "--threads", "1"]
BODY = {"model": "mini", "prompt": [1, 2, 3], "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mini"
    write_checkpoint(folder, CONFIG, seed=0)
    return folder


@contextmanager
def command(
    folder: Path,
    log: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    recipe: bool = False,
) -> Iterator[Process]:
    what = ["--recipe", str(folder)] if recipe else [str(folder), *OPTIONS]
    with log.open("w") as stderr, said(log).open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "upcurve", "serve", *what, *options],
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield Process(process, log)
    finally:
        process.kill()
        process.wait()


def said(log: Path) -> Path:
    """Return where a command's stdout goes."""
    return log.with_name(f"{log.name}.json")


def announced(running: Process) -> dict[str, Any]:
    """Return the one line that --json prints."""
    assert until(lambda: said(running.log).read_text().endswith("\n")), "never ready"
    (line,) = said(running.log).read_text().splitlines()
    return json.loads(line)


def ready(running: Process) -> None:
    running.url = running.wait(r"ready at (http://\S+)")[1]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    assert until(lambda: gone(processes)), processes


def tokens(running: Process, count: int = 8) -> list[int]:
    body = {**BODY, "max_tokens": count, "return_token_ids": True}
    return json.load(post(running.url, body))["choices"][0]["token_ids"]


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[int]:
    from upcurve.engine.build import build_engine
    from upcurve.engine.execute.options import EngineOptions
    from upcurve.engine.schedule.request import SamplingParameters

    options = EngineOptions(device="cpu", threads=1, context_length=64, max_running_requests=1)
    sampling = SamplingParameters(max_tokens=8, temperature=0, ignore_eos=True)
    return build_engine(checkpoint, options).generate([[1, 2, 3]], sampling)[0]


def test_two_nodes_and_a_rank_that_dies(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    nodes = ["--tp", "2", "--ep", "2", "--nodes", "2", "--check-memory"]
    nodes += ["--rendezvous", f"127.0.0.1:{free_port()}"]
    with ExitStack() as stack:
        first = stack.enter_context(command(checkpoint, tmp_path / "0", *nodes))
        other = command(checkpoint, tmp_path / "1", *nodes, "--node-rank", "1", "--json")
        second = stack.enter_context(other)
        ready(first)
        told = announced(second)
        assert (told["role"], told["url"], told["pid"]) == ("ranks", None, second.process.pid)
        assert told["layout"] == {"tp": 2, "ep": 2, "dp": 1}
        assert list(told["processes"]) == ["rank 1"]
        assert tokens(first) == expected
        stream = post(first.url, {**BODY, "max_tokens": 15_000, "stream": True})
        assert stream.readline().startswith(b"data: ")
        all_of_them = [each for of in (first, second) for each in descendants(of.process.pid)]
        descendants(second.process.pid, "spawn_main")[0].kill()
        rest = stream.read().split(b"\n\n")
        assert b"the engine stopped: rank 1 ended" in rest[-2]
        assert first.process.wait(60) == second.process.wait(60) == 1
        wait_until_gone(all_of_them)
    for running, words in ((first, "rank 1 ended"), (second, "rank 1 was ended by SIGKILL")):
        (line,) = [line for line in running.lines() if "the engine stopped" in line]
        assert words in line
        assert "Traceback" not in running.log.read_text()


def test_two_nodes_that_were_told_otherwise(checkpoint: Path, tmp_path: Path) -> None:
    nodes = ["--nodes", "2", "--tp", "2", "--rendezvous", f"127.0.0.1:{free_port()}"]
    with ExitStack() as stack:
        first = stack.enter_context(command(checkpoint, tmp_path / "0", *nodes))
        other = command(checkpoint, tmp_path / "1", *nodes, "--node-rank", "1", "--ep", "2")
        second = stack.enter_context(other)
        assert first.process.wait(60) == second.process.wait(60) == 2
    expected = "ep: 1 at rank 0, 2 at rank 1; start all nodes with the same options"
    for running in (first, second):
        assert running.lines() == [f"upcurve: error: {expected}"]


def test_a_rendezvous_that_is_taken(checkpoint: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        words = refuse(checkpoint, *OPTIONS, "--tp", "2", "--nodes", "2", "--rendezvous", where)
    assert "cannot be listened on: Address already in use; give all nodes another port" in words


def test_ranks_that_torchrun_starts_end_together(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(
                command(
                    *(checkpoint, tmp_path / str(rank), "--tp", "2"),
                    environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            )
            for rank in range(2)
        ]
        ready(ranks[0])
        assert tokens(ranks[0]) == expected
        ranks[0].process.send_signal(signal.SIGTERM)
        assert [each.process.wait(60) for each in ranks] == [0, 0]
        assert "Traceback" not in ranks[1].log.read_text()


def test_replicas_that_share_their_experts_end_with_their_router(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    with command(checkpoint, tmp_path / "log", "--dp", "2", "--ep", "2") as running:
        ready(running)
        with urllib.request.urlopen(f"{running.url}/health", timeout=60) as answer:
            assert [each["up"] for each in json.load(answer)["replicas"]] == [True, True]
        # Both replicas compute: the second request goes to the one that has less to do.
        stream = post(running.url, {**BODY, "max_tokens": 2000, "stream": True})
        assert stream.readline().startswith(b"data: ")
        assert tokens(running) == expected
        with urllib.request.urlopen(f"{running.url}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        used = [line for line in text.splitlines() if line.startswith("upcurve_prompt_tokens_to")]
        assert [line.split()[-1] for line in used] == ["3.0", "3.0"]
        all_of_them = descendants(running.process.pid)
        running.process.kill()
        wait_until_gone(all_of_them)


def test_a_replica_that_is_killed_is_started_anew(
    checkpoint: Path, tmp_path: Path, expected: list[int]
) -> None:
    def replicas() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{running.url}/health", timeout=60) as answer:
            return json.load(answer)["replicas"]

    with command(checkpoint, tmp_path / "log", "--dp", "2", "--json") as running:
        ready(running)
        told = announced(running)
        assert (told["role"], told["url"], told["model"]) == ("router", running.url, "mini")
        assert told["layout"] == {"tp": 1, "ep": 1, "dp": 2}
        before = told["workers"]
        assert [each["restarts"] for each in replicas()] == [0, 0]
        psutil.Process(before[0]["pid"]).kill()
        # Until it is back the other one serves alone.
        assert until(lambda: not replicas()[0]["up"] or replicas()[0]["restarts"] > 0)
        assert [tokens(running) for _ in range(2)] == [expected] * 2
        assert until(lambda: replicas()[0]["up"])
        found = replicas()
        assert [each["restarts"] for each in found] == [1, 0]
        assert [each["url"] for each in found] == [each["url"] for each in before]
        # Nobody may have taken note of their end: who started them is gone.
        assert until(lambda: gone(before[0]["processes"].values()))
        stream = post(running.url, {**BODY, "max_tokens": 2000, "stream": True})
        assert stream.readline().startswith(b"data: ")
        assert tokens(running) == expected
        with urllib.request.urlopen(f"{running.url}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        name = f'upcurve_router_replica_restarts_total{{replica="{before[0]["url"]}"}}'
        assert f"{name} 1.0" in text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert "replica 0: SIGKILL: replica" in running.log.read_text()
        assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tp", "4", "--ep", "3"], "ep: 3 does not divide tp 4"),
        (["--tp", "2", "--nodes", "2"], "rendezvous: several nodes need one"),
        (["--dp", "2", "--nodes", "2"], "nodes: replicas of one command are on one node"),
        (["--tp", "2", "--node-rank", "1"], "node-rank: it does nothing on one node; add --nodes"),
        (["--dp", "2", "--rendezvous", "a:1"], "rendezvous: it does nothing on one node; add"),
        (["--replicas", "http://a"], "replicas: only a router has them"),
        (["--tp", "16"], "the largest that fits is --tp 4"),
    ],
)
def test_layouts_that_cannot_be(checkpoint: Path, options: list[str], words: str) -> None:
    assert words in refuse(checkpoint, *OPTIONS, *options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "replicas: a router needs some"),
        (["--replicas", "http://a,http://a"], "replicas: an address stands there twice"),
        (["--replicas", "ftp://a"], "replicas: 'ftp://a' is no address"),
    ],
)
def test_a_router_without_replicas(options: list[str], words: str) -> None:
    assert words in refuse("--role", "router", *options)


def test_a_router_takes_no_option_that_does_nothing(checkpoint: Path) -> None:
    replicas = ["--role", "router", "--replicas", "http://a"]
    for name, *options in (
        ("model", str(checkpoint)),
        ("tp", "--tp", "2"),
        ("served-model-name", "--served-model-name", "a"),
        ("prefill-workers", "--prefill-workers", "1"),
    ):
        assert f"{name}: a router has no use for it" in refuse(*replicas, *options)


def test_a_server_without_a_model() -> None:
    assert "model: it is missing" in refuse("--port", "0")


def test_a_rank_that_dies_while_it_loads_ends_the_server(checkpoint: Path, tmp_path: Path) -> None:
    with command(checkpoint, tmp_path / "log", "--tp", "2") as running:
        assert until(lambda: descendants(running.process.pid, "spawn_main") != [], 60)
        # The first is rank 1: it has not even met the other.
        descendants(running.process.pid, "spawn_main")[0].kill()
        assert running.process.wait(60) == 1
        (line,) = [line for line in running.lines() if "the engine" in line]
        assert "rank 1 was ended by SIGKILL" in line
