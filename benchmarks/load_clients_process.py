"""A client's whole process tree, and the server of known timing that it is measured against."""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

SERVER = [sys.executable, "-m", "upcurve", "known-server"]
MEMORY_EVERY_S = 0.5
"""Reading the proportional set size walks page tables: ten times a second it would be a load."""


@dataclass(frozen=True)
class Usage:
    """What a client's process tree cost."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int | None
    """None where it had to be ended at the time limit."""


def run_tree(command, folder, timeout_s, environment=None, keep=()):
    """Run a command to its end.

    CPU time is the kernel's own account of every process below this one that has ended meanwhile:
    as a subreaper this process inherits, and waits for, whatever the client leaves behind. Memory
    is the largest sum of the proportional set sizes, so pages shared by forks count once.

    Args:
        command: Its words.
        folder: Working directory; output goes to client.out and client.log there.
        timeout_s: After which the whole tree is ended.
        environment: Variables beside those of this process.
        keep: Process ids below this process that are none of the client's.
    """
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with (folder / "client.out").open("wb") as out, (folder / "client.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=log, env={**os.environ, **(environment or {})}
        )
        done, peaks = threading.Event(), [0.0]
        sampler = threading.Thread(target=_sample_memory, args=(keep, done, peaks))
        sampler.start()
        try:
            exit_code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            wall_s = time.perf_counter() - started
            done.set()
            sampler.join()
            _end_and_reap(keep)
            process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(wall_s, cpu_s, peaks[0], exit_code)


def _below(keep):
    kept = set(keep)
    for pid in keep:
        if psutil.pid_exists(pid):
            kept.update(each.pid for each in psutil.Process(pid).children(recursive=True))
    below = psutil.Process().children(recursive=True)
    return [each for each in below if each.pid not in kept]


def _sample_memory(keep, done, peaks):
    while not done.wait(MEMORY_EVERY_S):
        total = 0
        for process in _below(keep):
            try:
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            except OSError:  # it has ended
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        peaks[0] = max(peaks[0], total / 1024)


def _end_and_reap(keep):
    while below := _below(keep):
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in below:
            with suppress(ChildProcessError):  # its own parent waits, or hands it on to us
                os.waitpid(process.pid, 0)


class KnownServer:
    """A running server; what it did is there once the context of `known_server` is left."""

    def __init__(self, base_url, process):
        self.base_url = base_url
        self.process = process
        self.truth = None
        """Its own record."""
        self.cpu_s = None
        """User and system time of its process."""


@contextmanager
def known_server(folder, *options):
    """Start a fresh server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    truth = folder / "truth.json"
    words = ["--port", str(port), "--truth", str(truth), "--json", *map(str, options)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*SERVER, *words], stdout=log, stderr=log)
        server = KnownServer(f"http://127.0.0.1:{port}", process)
        try:
            _wait_until_open(port, process, folder / "server.log")
            yield server
            times = psutil.Process(process.pid).cpu_times()
            server.cpu_s = times.user + times.system
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    server.truth = json.loads(truth.read_text())


def _wait_until_open(port, process, log):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


@dataclass(frozen=True)
class Truth:
    """What the server wrote: in all, and of the measured requests, which are the last to arrive."""

    requests: int
    tokens: int
    """Of all requests that were answered to the end, those of a warm-up included."""
    ttft_ms: tuple[float, float]
    """Median, 99th percentile."""
    tpot_ms: float
    """Median."""
    streams: float
    """In the server on time average, from the arrival that could fill it to the last arrival."""
    tokens_per_s: float
    """Written in the same time, a request's tokens taken as evenly spread."""

    @classmethod
    def of(cls, requests, streams, measured, tokens_per_chunk=1):
        """Work it out from the server's record; None where nothing was served whole."""
        whole = [each for each in requests if each["ended_ns"] and each["chunks"] > 1]
        if not whole:
            return None
        served = (len(whole), sum(each["tokens"] for each in whole))
        whole = sorted(whole, key=lambda each: each["arrived_ns"])[-measured:]
        names = ("arrived_ns", "first_written_ns", "last_written_ns", "ended_ns", "tokens")
        arrived, first, last, ended, tokens = (
            np.array([each[name] for each in whole], dtype=np.float64) for name in names
        )
        ttft_ms = (first - arrived) / 1e6
        tpot_ms = (last - first) / 1e6 / (tokens - np.minimum(tokens_per_chunk, tokens - 1))
        start, end = arrived[min(streams, len(arrived)) - 1], arrived[-1]

        def within(since, until):
            return np.clip(np.minimum(until, end) - np.maximum(since, start), 0, None)

        written = tokens * within(first, last) / (last - first)
        span_ns = end - start or np.nan  # a single request has no such time
        return cls(
            *served,
            tuple(map(float, np.percentile(ttft_ms, [50, 99]))),
            float(np.median(tpot_ms)),
            float(within(arrived, ended).sum() / span_ns),
            float(written.sum() / span_ns * 1e9),
        )
