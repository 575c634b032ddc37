"""What HTTP and scheduling cost, around a device that computes nothing in a known time.

    python benchmarks/host_path.py [--streams 1500] [--step-ms 15] [--seconds 30] [--requests 10000]

Server and engine are the real ones. Three processes: the engine's, the HTTP side, and this one,
which is the client. It costs little, so that all of them fit on two cores: most streams are read
ten times a second, a few at once. The device draws the number of its step as the token, so that
each token of those few says when the device was done with it: its lateness is how much later the
client had it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import resource
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from upcurve.engine.execute.device import Drawn
from upcurve.engine.execute.engine import Engine
from upcurve.engine.memory.memory import Memory
from upcurve.engine.schedule.request import Request
from upcurve.engine.schedule.scheduler import Scheduled

VOCABULARY = 1_000_000
STEPS = 1_000_000
PROMPTLY = 50
"""Streams that are read at once."""
DRAIN_SECONDS = 0.1
"""How often the others are."""
WARM_UP_SECONDS = 5.0
TOKEN = re.compile(rb'"token_ids":\[(\d+)\]')


@dataclass(frozen=True, slots=True)
class Flight:
    """A step on its way."""

    done: float
    drawn: Drawn

    def wait(self) -> Drawn:
        """Wait until it is done."""
        left = self.done - time.perf_counter()
        if left > 0:
            time.sleep(left)
        return self.drawn


class NumberedSteps:
    """Draws the number of the step, and writes down when each step was done.

    Unlike `FakeDevice` it checks nothing: what it costs itself is not the host's.
    """

    asynchronous = True

    def __init__(self, times: Path, step_seconds: float) -> None:
        self._times = np.memmap(times, dtype=np.float64, mode="r+", shape=(STEPS,))
        self._step_seconds = step_seconds
        self._free_at = 0.0
        self._steps = 0

    def launch(self, step: Sequence[Scheduled]) -> Flight:
        """Begin a step when the last one is done."""
        self._free_at = max(time.perf_counter(), self._free_at) + self._step_seconds
        number, self._steps = self._steps, self._steps + 1
        self._times[number] = self._free_at
        count = sum(each.draws for each in step)
        return Flight(self._free_at, Drawn([number] * count, [None] * count))

    def check(self, requests: Sequence[Request]) -> None:
        """Check nothing."""


def build(times: Path, streams: int, step_seconds: float) -> Engine:
    """Return the engine; called in its process."""
    return Engine(
        NumberedSteps(times, step_seconds),
        Memory(max_running_requests=streams, token_capacity=streams * 4096, page_size=16),
        vocab_size=VOCABULARY,
        context_length=4096,
        max_running_requests=streams,
        max_batch_tokens=8192,
        description="no model",
    )


def run_server(listener: socket.socket, times: Path, streams: int, step_seconds: float) -> None:
    """Serve until SIGTERM; the target of the HTTP side's process."""
    from upcurve.engine.serve.app import Server
    from upcurve.engine.serve.bridge import Bridge
    from upcurve.engine.serve.http_server import HttpServer
    from upcurve.engine.serve.intake import Intake
    from upcurve.engine.serve.metrics import Metrics
    from upcurve.engine.serve.remote import RemoteEngine

    with RemoteEngine(partial(build, times, streams, step_seconds)) as engine:
        engine.wait()
        metrics = Metrics()
        bridge = Bridge(engine, metrics)
        intake = Intake(engine.capacity, None, None)
        server = Server(bridge, metrics, intake, model_name="none")
        HttpServer(server, bridge, 0, lambda: None).run(sockets=[listener])


@dataclass(frozen=True)
class Processes:
    """The server's two processes."""

    port: int
    http: psutil.Process
    engine: psutil.Process

    def seconds(self) -> dict[str, float]:
        """Return the CPU seconds of all three so far; sending is the kernel's part of HTTP."""
        http, engine = self.http.cpu_times(), self.engine.cpu_times()
        return {
            "http": http.user,
            "http kernel": http.system,
            "engine": engine.user + engine.system,
            "client": time.process_time(),
        }

    def megabytes(self) -> dict[str, float]:
        """Return the resident memory of the server's two."""
        return {name: getattr(self, name).memory_info().rss / 1e6 for name in ("http", "engine")}


@contextmanager
def server(times: Path, streams: int, step_seconds: float) -> Iterator[Processes]:
    """Run a server."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        process = multiprocessing.get_context("spawn").Process(
            target=run_server, args=(listener, times, streams, step_seconds)
        )
        process.start()
        port = listener.getsockname()[1]
    try:
        ask(connect(port), head("GET", "/health"))
        http = psutil.Process(process.pid)
        engine = next(each for each in http.children() if "spawn_main" in " ".join(each.cmdline()))
        yield Processes(port, http, engine)
    finally:
        process.terminate()
        process.join()


def connect(port: int) -> socket.socket:
    """Return a connection."""
    return socket.create_connection(("127.0.0.1", port))


def head(method: str, path: str, body: bytes = b"") -> bytes:
    """Return a request."""
    return b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        method.encode(),
        path.encode(),
        len(body),
        body,
    )


def completion(prompt: int, tokens: int, *, stream: bool) -> bytes:
    """Return a request for a completion of a prompt of so many token ids."""
    body = {
        "model": "none",
        "prompt": list(range(prompt)),
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
        "return_token_ids": True,
    }
    return head("POST", "/v1/completions", json.dumps(body).encode())


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and return the whole answer, which has a content length."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer) < whole_length(answer):
        part = connection.recv(2**16)
        assert part, answer
        answer += part
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return answer


def whole_length(answer: bytes) -> int:
    """Return how long an answer is that has all of its head."""
    begin = answer.index(b"\r\n\r\n") + 4
    length = re.search(rb"content-length: (\d+)", answer[:begin], re.IGNORECASE)
    assert length is not None, answer
    return begin + int(length[1])


def measure_streams(
    processes: Processes, streams: int, seconds: float, tokens: int, times: Path
) -> dict[str, float]:
    """Open all streams, and measure while all of them run."""
    connections = []
    request = completion(64, tokens, stream=True)
    for _ in range(streams):
        connection = connect(processes.port)
        connection.sendall(request)
        connections.append(connection)
    for connection in connections:
        # Its first token: from the last of these on, all streams run.
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
    promptly = connections[:PROMPTLY]
    poll = select.epoll()
    by_number = {}
    for connection in connections:
        connection.setblocking(False)
    for connection in promptly:
        by_number[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    arrivals: list[tuple[int, float]] = []
    count = 0

    def drain() -> int:
        found = 0
        for connection in connections[PROMPTLY:]:
            try:
                found += connection.recv(2**20).count(b"data: ")
            except BlockingIOError:
                continue
        return found

    # What waited while the streams began is read first.
    began = time.perf_counter() + WARM_UP_SECONDS
    before: dict[str, float] = {}
    drained = 0.0
    while (now := time.perf_counter()) < began + seconds:
        if not before and now >= began:
            before, began, count = processes.seconds(), now, 0
            arrivals.clear()
        for number, _ in poll.poll(max(0.0, drained + DRAIN_SECONDS - now)):
            data = by_number[number].recv(2**16)
            at = time.perf_counter()
            found = TOKEN.findall(data)
            count += len(found)
            arrivals += [(int(token), at) for token in found]
        if time.perf_counter() >= drained + DRAIN_SECONDS:
            drained = time.perf_counter()
            count += drain()
    count += drain()
    after, wall = processes.seconds(), time.perf_counter() - began
    done = np.memmap(times, dtype=np.float64, mode="r", shape=(STEPS,))
    lateness = np.array([at - done[step] for step, at in arrivals]) * 1e3
    numbers = [step for step, _ in arrivals]
    steps = max(numbers) - min(numbers)
    span = done[max(numbers)] - done[min(numbers)]
    for connection in connections:
        connection.close()
    return {
        "tokens/s": count / wall,
        "ms a step": span / steps * 1e3,
        "lateness p50 ms": float(np.percentile(lateness, 50)),
        "lateness p99 ms": float(np.percentile(lateness, 99)),
        "lateness max ms": float(lateness.max()),
        **{f"{name} us/token": (after[name] - before[name]) / count * 1e6 for name in after},
        **{f"{name} cores": (after[name] - before[name]) / wall for name in after},
    }


def measure_requests(processes: Processes, requests: int, *, stream: bool) -> dict[str, float]:
    """Send short requests over 64 connections, each as soon as the last was answered."""
    request = completion(64, 4, stream=stream)
    left = threading.Semaphore(requests)
    poll = select.epoll()
    answers: dict[int, bytes] = {}
    by_number = {}
    for _ in range(min(64, requests)):
        connection = connect(processes.port)
        by_number[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
        left.acquire()
        connection.sendall(request)
    before, began = processes.seconds(), time.perf_counter()
    missing = requests
    while missing:
        for number, _ in poll.poll():
            answer = answers.pop(number, b"") + by_number[number].recv(2**16)
            if stream:
                ended = answer.endswith(b"0\r\n\r\n")
            else:
                ended = b"\r\n\r\n" in answer and len(answer) >= whole_length(answer)
            if not ended:
                answers[number] = answer
                continue
            assert answer.startswith(b"HTTP/1.1 200"), answer
            missing -= 1
            if left.acquire(blocking=False):
                by_number[number].sendall(request)
    wall, after = time.perf_counter() - began, processes.seconds()
    for connection in by_number.values():
        connection.close()
    return {
        "requests/s": requests / wall,
        **{f"{name} us/request": (after[name] - before[name]) / requests * 1e6 for name in after},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1500)
    parser.add_argument("--step-ms", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "steps"
        times.touch()
        np.memmap(times, dtype=np.float64, mode="r+", shape=(STEPS,))
        if options.seconds:
            with server(times, options.streams, options.step_ms / 1e3) as processes:
                # Long enough that none ends before the time is over.
                result = measure_streams(processes, options.streams, options.seconds, 3900, times)
                show(f"{options.streams} streams, {options.step_ms} ms a step", result)
        if options.requests:
            with server(times, 64, 1e-3) as processes:
                for stream in (False, True):
                    measure_requests(processes, options.requests // 5, stream=stream)
                    before = processes.megabytes()
                    result = measure_requests(processes, options.requests, stream=stream)
                    after = processes.megabytes()
                    for name in after:
                        result[f"{name} MB before"] = before[name]
                        result[f"{name} MB after"] = after[name]
                    show(f"{options.requests} short requests, stream {stream}", result)


def show(title: str, figures: dict[str, float]) -> None:
    """Print a table."""
    print(title)
    for name, value in figures.items():
        print(f"  {name:24} {value:12,.2f}")


if __name__ == "__main__":
    main()
