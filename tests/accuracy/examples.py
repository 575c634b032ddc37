"""Items with known answers, and the small engine that gives them."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.sweep.examples import ENGINE
from upcurve.accuracy.items import Item

RIGHT, WRONG = " It is {}.\n#### {}", " It is {}.\n#### {}1"


def items(count: int) -> list[Item]:
    return [
        Item(str(n), f"What is {n} + {n}?", f"It is {2 * n}.\n#### {2 * n}") for n in range(count)
    ]


def write_items(path: Path, given: list[Item]) -> Path:
    rows = [{"question": each.question, "answer": each.answer} for each in given]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(given: list[Item], wrong: set[int]) -> dict[str, str]:
    """Return question -> answer, wrong at the places that are named."""
    return {
        each.question: (WRONG if place in wrong else RIGHT).format(each.target, each.target)
        for place, each in enumerate(given)
    }


def write_answers(path: Path, given: Mapping[str, str]) -> Path:
    path.write_text(json.dumps(given))
    return path


@contextmanager
def engine(*flags: object) -> Iterator[str]:
    """Run the small engine; give its URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(ENGINE), "--port", str(port), *map(str, flags)])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port, "/health")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def ask(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
