"""Where `upcurve bench` ends on this machine, and whether it tells what a server did.

    python benchmarks/load_client_limits.py ceiling      more tokens until the machine is full
    python benchmarks/load_client_limits.py coalesced    several tokens in a chunk
    python benchmarks/load_client_limits.py faults       a server that lies, cuts, stalls

The server of known timing runs beside the client, on the same cores: the ceiling is that of both.
"""

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet
from load_clients_peers import OUTPUT_TOKENS, Load, Upcurve
from load_clients_process import Truth, known_server, run_tree
from load_clients_table import print_table

FAILURES = {
    "cut": "cut",
    "no_done": "cut",
    "short": "short_output",
    "long": "long_output",
    "http_429": "http_4xx",
    "http_500": "http_5xx",
    "stall": "timeout",
    "garbage": "malformed",
    "empty": "malformed",
    "error_event": "error_event",
}
"""What the client calls each fault of the server."""
FAULTS = (
    *("cut:11", "short:7", "http_500:13", "no_done:17", "garbage:19", "empty:23"),
    *("stall:29:60000", "error_event:31", "long:37", "http_429:41"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["ceiling", "coalesced", "faults"])
    parser.add_argument("--streams", help="[default: 256,512,1024,1536,2048; else 64]")
    parser.add_argument("--interval-ms", default="20,10", help="of the ceiling")
    parser.add_argument("--requests-per-stream", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one run")
    parser.add_argument("--format", choices=["text", "markdown"], default="text")
    arguments = parser.parse_args()
    usual = "256,512,1024,1536,2048" if arguments.what == "ceiling" else "64"
    arguments.streams = [int(each) for each in (arguments.streams or usual).split(",")]
    arguments.interval_ms = [float(each) for each in arguments.interval_ms.split(",")]
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        table = {"ceiling": ceiling, "coalesced": coalesced, "faults": faults}[arguments.what]
        heads, rows = table(Path(folder), arguments)
    print_table(heads, rows, arguments.format)


class Run:
    """One point of `upcurve bench`: its JSON, its traces, its cost, and the server's record."""

    def __init__(self, folder, arguments, streams, *options, timeout_s=None):
        folder = Path(tempfile.mkdtemp(dir=folder))
        requests = streams * arguments.requests_per_stream
        with known_server(folder, *options) as server:
            load = Load(server.base_url, streams, requests, folder, tokenizer=None)
            command = [*Upcurve().command(load), "--save", str(folder / "requests.parquet")]
            if timeout_s:
                command += ["--timeout", str(timeout_s)]
            self.usage = run_tree(command, folder, arguments.timeout, keep=[server.process.pid])
        self.server = server
        self.measured = requests
        self.served = server.truth["requests"]
        lines = (folder / "client.out").read_text().splitlines()
        if not lines:
            log = (folder / "client.log").read_text()
            raise SystemExit(f"no point at {streams} streams ({self.usage}):\n{log}")
        self.point = json.loads(lines[-1])
        self.requests = pyarrow.parquet.read_table(folder / "requests.parquet").to_pylist()


def ceiling(folder, arguments):
    heads = ["streams", "ms a token", "wanted tok/s", "tok/s", "streams in the server"]
    heads += ["TTFT p50/p99 ms, true", "reported", "TPOT ms, true", "error %"]
    heads += ["client CPU us/token", "cores: client", "server", "client peak MB", "trusted"]
    rows = []
    for interval_ms in arguments.interval_ms:
        for streams in arguments.streams:
            run = Run(folder, arguments, streams, "--interval-ms", interval_ms)
            truth, usage, point = Truth.of(run.served, streams, run.measured), run.usage, run.point
            ttft_ms, tpot_ms = point["ttft_ms"], point["tpot_ms"]["p50"]
            wanted = streams * OUTPUT_TOKENS / (0.1 + (OUTPUT_TOKENS - 1) * interval_ms / 1e3)
            marks = [each["kind"] for each in point["client"]["marks"]]
            rows.append(
                [
                    str(streams),
                    f"{interval_ms:g}",
                    f"{wanted:,.0f}",
                    f"{truth.tokens_per_s:,.0f}",
                    f"{truth.streams:,.0f} ({truth.streams / streams:.1%})",
                    f"{truth.ttft_ms[0]:.1f}/{truth.ttft_ms[1]:.1f}",
                    f"{ttft_ms['p50']:.1f}/{number(ttft_ms['p99'], '.1f')}",
                    f"{truth.tpot_ms:.3f}",
                    f"{(tpot_ms / truth.tpot_ms - 1) * 100:+.2f}",
                    f"{usage.cpu_s / truth.tokens * 1e6:.1f}",
                    f"{usage.cpu_s / usage.wall_s:.2f}",
                    f"{run.server.cpu_s / usage.wall_s:.2f}",
                    f"{usage.peak_mb:,.0f}",
                    ", ".join(marks) or "yes",
                ]
            )
    return heads, rows


def coalesced(folder, arguments):
    heads = ["streams", "tokens a chunk", "TPOT ms, true", "reported", "error %"]
    heads += ["TTFT p50 ms, true", "reported", "tokens that came together, reported"]
    rows = []
    for streams in arguments.streams:
        for count in (1, 4, 16):
            run = Run(folder, arguments, streams, "--tokens-per-chunk", count)
            truth = Truth.of(run.served, streams, run.measured, tokens_per_chunk=count)
            reported = run.point["tpot_ms"]["p50"]
            rows.append(
                [
                    str(streams),
                    str(count),
                    f"{truth.tpot_ms:.3f}",
                    f"{reported:.3f}",
                    f"{(reported / truth.tpot_ms - 1) * 100:+.2f}",
                    f"{truth.ttft_ms[0]:.1f}",
                    f"{run.point['ttft_ms']['p50']:.1f}",
                    number(run.point["chunk_coalescing"], ".2f"),
                ]
            )
    return heads, rows


def faults(folder, arguments):
    """Faults of every kind, counted by the server and by the client, warm-up included."""
    heads = ["streams", "the server's faults", "it did", "the client's failures", "counted", "same"]
    options = [word for fault in FAULTS for word in ("--fault", fault)]
    rows = []
    for streams in arguments.streams:
        run = Run(folder, arguments, streams, *options, timeout_s=10)
        # The client's probe asks for a token before the first point: a request, but none of its.
        probes = len(run.served) - len(run.requests)
        did = Counter(each["fault"] for each in run.served[probes:])
        counted = Counter(each["failure"] for each in run.requests)
        for failure in (None, *dict.fromkeys(FAILURES.values())):
            kinds = [fault for fault in FAILURES if FAILURES[fault] == failure] or [None]
            served = sum(did[kind] for kind in kinds)
            rows.append(
                [
                    str(streams),
                    " + ".join(f"{kind or 'none'} {did[kind]}" for kind in kinds),
                    str(served),
                    failure or "none",
                    str(counted[failure]),
                    "yes" if served == counted[failure] else "NO",
                ]
            )
        unknown = set(counted) - {None, *FAILURES.values()}
        rows += [[str(streams), "-", "0", kind, str(counted[kind]), "NO"] for kind in unknown]
    return heads, rows


def number(value, form):
    return "-" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    main()
