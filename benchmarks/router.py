"""What the router adds: two servers of known timing, asked directly and through it.

    python benchmarks/router.py
    python benchmarks/router.py --streams 32,256 --rounds 3

Closed loop, 256 tokens in and 128 out, a token every 20 ms, in rounds that alternate. "direct" asks
one of the servers, "router" both through the router. A cell is the median [lowest, highest] over
the rounds; CPU is that of the router's process for each streamed chunk.
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil

from upcurve.load.arrivals import ClosedLoop
from upcurve.load.session import Session, Settings
from upcurve.load.target import Target
from upcurve.load.workload import SyntheticWorkload
from upcurve.sweep.engine_process import EngineProcess, free_port

HOST, OUTPUT = "127.0.0.1", 128
UPCURVE = (sys.executable, "-m", "upcurve")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="32,128")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(name, *command, path):
            port = stack.enter_context(free_port(HOST))
            line = [*UPCURVE, *command, "--host", HOST, "--port", str(port)]
            engine = EngineProcess(line, dict(os.environ), folder / name)
            stack.enter_context(engine).wait_until_ready(HOST, port, path, 60)
            return f"http://{HOST}:{port}"

        servers = [start(str(number), "known-server", path="/v1/models") for number in range(2)]
        router = start(
            *("router", "serve", "--role", "router", "--replicas", ",".join(servers)),
            path="/health",
        )
        process = router_process(router)
        ways = {"direct": servers[0], "router": router}
        print(f"{'streams':>7s} {'way':>7s} {'TTFT ms':>22s} {'ITL p99 ms':>22s} {'CPU us':>18s}")
        for streams in map(int, arguments.streams.split(",")):
            found = {way: [] for way in ways}
            for number in range(arguments.rounds):
                for way, url in ways.items():
                    found[way].append(measure(url, streams, number, process))
            for way, rows in found.items():
                ttft, itl, cpu = (spread(column) for column in zip(*rows, strict=True))
                print(f"{streams:7d} {way:>7s} {ttft:>22s} {itl:>22s} ", end="")
                print(f"{cpu if way == 'router' else '-':>18s}", flush=True)


def router_process(url):
    """Return the process that listens at a URL."""
    port = int(url.rpartition(":")[2])
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections("tcp"):
            if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return process
    raise RuntimeError(f"nothing listens at {url}")


def measure(url, streams, number, process):
    """Return TTFT p50, ITL p99 in ms, and the router's CPU in us for each chunk."""
    with Session(Target(url, "known"), Settings(scrape=False)) as session:
        session.probe(prompts("probe"))
        before = sum(process.cpu_times()[:2])
        load = ClosedLoop(streams, requests=4 * streams)
        figures = session.point(prompts(f"{streams}-{number}"), load).figures
        spent = sum(process.cpu_times()[:2]) - before
    assert figures["failed"] == 0
    chunks = 4 * streams * OUTPUT
    return figures["ttft_ms"]["p50"], figures["itl_ms"]["p99"], spent / chunks * 1e6


def prompts(salt):
    return SyntheticWorkload.exact(256, OUTPUT, seed=0, vocabulary=(256, 1280), salt=salt)


def spread(values):
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


if __name__ == "__main__":
    main()
