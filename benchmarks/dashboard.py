"""The dashboard's server: cold start, and how long each endpoint takes on a large store.

    python benchmarks/dashboard.py [--store FOLDER] [--requests 40]

Cold start is from the launch of `upcurve dashboard` to the first answer, on the published data. The
large store (made by `dashboard_store.py` where none is named) has 5,000 series and 200,000 points;
each endpoint is asked over HTTP, one request after the other, by turns over groups: `new` asks what
nobody asked before, `known` the same again, `304` with the ETag. CPU is of the server's process,
the mean of a new answer: on a shared machine it says more than the clock. `--export` also writes
the large store as a static site, which takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dashboard_store
import httpx2 as httpx
import psutil
from rich.console import Console
from rich.table import Table

from upcurve.records.rows import import_rows
from upcurve.records.store import Store

STARTS = 7


@contextmanager
def dashboard(store: Path) -> Iterator[tuple[str, psutil.Process, float]]:
    """Start the dashboard; give its URL, its process and the seconds until its first answer."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "upcurve", "dashboard", "--json", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--store", str(store)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        url = json.loads(process.stdout.readline())["url"]
        httpx.get(url).raise_for_status()
        httpx.get(f"{url}api/v1/meta").raise_for_status()
        yield url, psutil.Process(process.pid), time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def questions(client: httpx.Client, count: int) -> dict[str, list[str]]:
    """Return `count` different questions for each endpoint, spread over the store."""
    groups = client.get("meta").json()["groups"]
    found: dict[str, list[str]] = {}

    def ask(endpoint: str, path: str) -> None:
        found.setdefault(endpoint, []).append(path)

    for turn in range(count):
        group = groups[turn % len(groups)]
        name, offset = group["id"], turn // len(groups)
        answer = client.get("series", params={"group": name, "limit": 8, "offset": 8 * offset})
        names = [each["name"] for each in answer.json()["items"]]
        eight = "&".join(f"series={each}" for each in names)
        two = "&".join(f"series={each}" for each in names[:2])
        place = f"isl={group['isl']}&osl={group['osl']}"
        stem = names[0].rpartition("-20")[0]
        ask("meta", "meta")
        ask("overview, 1 group", f"overview?limit=1&offset={turn % len(groups)}&tiers={30 + turn}")
        ask("series, 50", f"series?group={name}&offset={offset}")
        ask("frontier, 8 series", f"frontier?{eight}&{place}")
        ask("frontier, 8 series, other y", f"frontier?{eight}&{place}&y=cost")
        ask("limit", f"limit?model=Qwen3.5-397B-A17B&hardware=MI355X&isl={1000 + turn}&osl=1024")
        ask("compare, 2 series", f"compare?{two}&{place}&at=20,40,60")
        ask("compare, 8 series", f"compare?{eight}&{place}&at=20,40,60")
        ask("history, 25 builds", f"history?pattern={stem}*&at=40")
        ask("runs, 50", f"runs?offset={50 * turn}")
        ask("run", f"runs/{names[0]}-run")
        ask("accuracy", f"accuracy?group={name}")
        ask("hardware", f"hardware?on=2026-0{1 + turn % 9}-01")
    del found["meta"][1:]
    return found


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measure(url: str, process: psutil.Process, count: int) -> Table:
    """Return a row for each endpoint: ms of the first time, of the second, and of a 304."""
    table = Table()
    table.add_column("GET /api/v1/...")
    for head in ("CPU", "new p50", "new p95", "known p50", "known p95", "304 p95", "kB", "kB gzip"):
        table.add_column(head, justify="right")
    with httpx.Client(base_url=f"{url}api/v1/", timeout=120) as client:
        began = time.perf_counter()
        client.get("overview").raise_for_status()
        print(f"overview of 20 groups, the first time: {time.perf_counter() - began:.1f} s")
        for endpoint, paths in questions(client, count).items():
            new, known, unchanged, sizes, packed, cpu = [], [], [], [], [], 0.0
            for path in paths:
                before = cpu_s(process)
                first, took = timed(client, path)
                cpu += cpu_s(process) - before
                new.append(took)
                sizes.append(len(first.content))
                packed.append(int(first.headers["content-length"]))
                known.append(timed(client, path)[1])
                tag = {"If-None-Match": first.headers["etag"]}
                same, took = timed(client, path, tag)
                assert same.status_code == 304
                unchanged.append(took)
            table.add_row(
                endpoint,
                f"{1000 * cpu / len(paths):.0f}",
                f"{statistics.median(new):.1f}",
                f"{p95(new):.1f}",
                f"{statistics.median(known):.1f}",
                f"{p95(known):.1f}",
                f"{p95(unchanged):.1f}",
                f"{statistics.median(sizes) / 1000:.1f}",
                f"{statistics.median(packed) / 1000:.1f}",
            )
    return table


def exported(store: Path, folder: Path) -> str:
    """Return size and time of a static export."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "upcurve", "export", "--site", str(folder), "--json"]
    done = subprocess.run(
        [*command, "--store", str(store)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = f"{told['files']:,} files, {told['bytes'] / 1e6:,.0f} MB"
    return f"export: {size}, {time.perf_counter() - began:,.0f} s, {cpu:,.0f} s of CPU"


def timed(
    client: httpx.Client, path: str, headers: dict[str, str] | None = None
) -> tuple[httpx.Response, float]:
    began = time.perf_counter()
    answer = client.get(path, headers=headers)
    took = 1000 * (time.perf_counter() - began)
    assert answer.status_code in (200, 304), answer.text
    return answer, took


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, help="a large store that dashboard_store.py made")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--export", action="store_true", help="measure the static export too")
    given = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / "published"
        with Store.open(published) as store:
            import_rows(store, "published:mi355x-qwen35")
        starts, cpus = [], []
        for _ in range(STARTS):
            with dashboard(published) as (_, process, took):
                starts.append(took)
                cpus.append(cpu_s(process))
        low, high = min(starts), max(starts)
        middle = statistics.median(starts)
        spread = f"{low:.2f} to {high:.2f}, {STARTS} starts"
        print(f"cold start: {middle:.2f} s ({spread}), {statistics.median(cpus):.2f} s of CPU")
        large = given.store
        if large is None:
            large = Path(folder) / "large"
            dashboard_store.make(large).close()
        with dashboard(large) as (url, process, took):
            print(f"cold start on the large store: {took:.2f} s")
            console.print(measure(url, process, given.requests))
        if given.export:
            print(exported(large, Path(folder) / "site"))


if __name__ == "__main__":
    main()
