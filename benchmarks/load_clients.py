"""Load clients against a server of known timing: what each reports, what was true, what it costs.

    python benchmarks/load_clients.py --aiperf BIN --guidellm BIN --inference-perf BIN

Measures `upcurve bench` and those of its peers whose programs are given, each from an environment
of its own. Every run has a fresh server (first token after 100 ms, then one every 20 ms) and is one
process tree; clients take turns at each number of streams. A client that fails has a row that says
so. Peers: aiperf 0.13.0, guidellm 0.8.1, inference-perf 0.7.0 (Python 3.12 or newer).
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from load_clients_peers import (
    OUTPUT_TOKENS,
    AIPerf,
    GuideLLM,
    InferencePerf,
    Load,
    Report,
    Upcurve,
    write_tokenizer,
)
from load_clients_process import Truth, Usage, known_server, run_tree
from load_clients_table import print_table

FIRST_MS, INTERVAL_MS = 100, 20
HEADS = (
    "client",
    "streams",
    "TTFT p50/p99 ms, true",
    "reported",
    "error",
    "TPOT ms, true",
    "reported",
    "error %",
    "streams in the server",
    "% of asked",
    "tok/s",
    "CPU us/token",
    "each more",
    "peak MB",
    "wall s",
)
CAPTION = f"""
First token {FIRST_MS} ms after a request's arrival, then one every {INTERVAL_MS} ms, \
{OUTPUT_TOKENS} tokens; {{requests}} requests a stream; medians over {{rounds}} round(s); \
{{cores}} cores, load average {{load:.1f}} at the start.
True: by the server's clock, arrival to just before the write, over the measured requests. \
TPOT: median of (last - first) / (n - 1).
Streams in the server: on time average from the arrival that could fill it to the last arrival. \
tok/s: written in that time.
CPU: user and system time of the client's whole process tree, from start to exit, over all tokens; \
each more: less the CPU and the tokens of a run of one request a stream, so without start and exit.
Peak MB: largest sum of the tree's proportional set sizes, read twice a second.
"""


@dataclass(frozen=True)
class Outcome:
    """One run of one client."""

    usage: Usage
    truth: Truth | None
    report: Report | None
    failure: str | None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--aiperf", type=program, metavar="BIN", help="the program, where it is to be measured"
    )
    parser.add_argument(
        "--guidellm", type=program, metavar="BIN", help="measured with 2 workers and by default"
    )
    parser.add_argument("--inference-perf", type=program, metavar="BIN")
    parser.add_argument("--clients", help="only those whose names start so: upcurve,aiperf")
    parser.add_argument("--streams", default="1,16,64,256,1024")
    parser.add_argument("--requests-per-stream", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one run")
    parser.add_argument("--format", choices=["text", "markdown"], default="text")
    arguments = parser.parse_args()
    clients = chosen_clients(arguments)
    load_average = os.getloadavg()[0]
    outcomes, short = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.timeout)
        for client in clients:
            bench.run(client, 1, 1)  # not counted: it compiles and caches the client's files
        for index in range(arguments.rounds):
            in_turn = clients[index % len(clients) :] + clients[: index % len(clients)]
            for streams in map(int, arguments.streams.split(",")):
                for client in in_turn:
                    point = (streams, client.name)
                    requests = streams * arguments.requests_per_stream
                    short.setdefault(point, []).append(bench.run(client, streams, streams))
                    outcomes.setdefault(point, []).append(bench.run(client, streams, requests))
    rows = [row(*point, runs, short[point]) for point, runs in outcomes.items()]
    print_table(HEADS, rows, arguments.format)
    print(
        CAPTION.format(
            requests=arguments.requests_per_stream,
            rounds=arguments.rounds,
            cores=os.cpu_count(),
            load=load_average,
        )
    )


def program(words):
    found = shutil.which(words)
    if found is None:
        raise argparse.ArgumentTypeError(f"{words} is no program")
    return str(Path(found).absolute())


def chosen_clients(arguments):
    clients = [Upcurve()]
    if arguments.aiperf:
        clients.append(AIPerf(arguments.aiperf))
    if arguments.guidellm:
        clients += [GuideLLM(arguments.guidellm, workers=2), GuideLLM(arguments.guidellm)]
    if arguments.inference_perf:
        clients.append(InferencePerf(arguments.inference_perf))
    if arguments.clients:
        starts = tuple(arguments.clients.lower().split(","))
        clients = [client for client in clients if client.name.lower().startswith(starts)]
    if not clients:
        raise SystemExit(f"--clients {arguments.clients} names none of those that are given")
    return clients


class Bench:
    """Runs clients, each in a folder of its own below `folder`."""

    def __init__(self, folder, timeout_s):
        self._folder = folder
        self._timeout_s = timeout_s
        self._tokenizer = folder / "tokenizer"
        self._runs = 0
        write_tokenizer(self._tokenizer)

    def run(self, client, streams, requests):
        """One run against a fresh server."""
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        with known_server(folder, "--first-ms", FIRST_MS, "--interval-ms", INTERVAL_MS) as server:
            load = Load(server.base_url, streams, requests, folder, self._tokenizer)
            usage = run_tree(
                client.command(load),
                folder,
                self._timeout_s,
                client.environment,
                keep=[server.process.pid],
            )
        truth = Truth.of(server.truth["requests"], streams, requests)
        report, failure = self._report(client, folder, usage)
        if truth and truth.requests < requests:
            failure = failure or f"{truth.requests} of {requests} requests were served whole"
        outcome = Outcome(usage, truth, report, failure)
        print(f"{client.name}, {streams} streams: {outcome}", file=sys.stderr, flush=True)
        return outcome

    def _report(self, client, folder, usage):
        if usage.exit_code is None:
            return None, f"not done after {self._timeout_s:.0f} s"
        failure = None
        if usage.exit_code:
            lines = (folder / "client.log").read_text(errors="replace").split("\n")
            said = next((line.strip() for line in reversed(lines) if line.strip()), "")
            failure = f"exit code {usage.exit_code}: {said}"
        try:
            return client.report(folder), failure
        except (OSError, LookupError, TypeError, ValueError) as error:
            return None, failure or f"no report: {error!r}"


def row(streams, name, runs, short_runs):
    good = [run for run in runs if run.report and run.truth]
    failures = [run.failure for run in runs if run.failure]
    if not good:
        return [name, str(streams), f"failed: {failures[0] if failures else 'nothing served'}"]

    def median(value):
        values = [value(run) for run in good]
        return None if None in values else statistics.median(values)

    def both(value, form):
        figures = [median(lambda run, at=at: value(run, at)) for at in (0, 1)]
        return "/".join("-" if each is None else f"{each:{form}}" for each in figures)

    def off(run, at):
        reported = run.report.ttft_ms[at]
        return None if reported is None else reported - run.truth.ttft_ms[at]

    in_server = median(lambda run: run.truth.streams)
    pairs = [
        (run.usage.cpu_s - short.usage.cpu_s, run.truth.tokens - short.truth.tokens)
        for run, short in zip(runs, short_runs, strict=True)
        if run.truth and short.truth and run.truth.tokens > short.truth.tokens
    ]
    each_more_us = [seconds / tokens * 1e6 for seconds, tokens in pairs]
    return [
        f"{name} ({len(failures)} of {len(runs)}: {failures[0]})" if failures else name,
        str(streams),
        both(lambda run, at: run.truth.ttft_ms[at], ".1f"),
        both(lambda run, at: run.report.ttft_ms[at], ".1f"),
        both(off, "+.1f"),
        f"{median(lambda run: run.truth.tpot_ms):.2f}",
        f"{median(lambda run: run.report.tpot_ms):.2f}",
        f"{median(lambda run: (run.report.tpot_ms / run.truth.tpot_ms - 1) * 100):+.2f}",
        f"{in_server:.1f}",
        f"{in_server / streams:.0%}",
        f"{median(lambda run: run.truth.tokens_per_s):,.0f}",
        f"{median(lambda run: run.usage.cpu_s / run.truth.tokens * 1e6):,.0f}",
        f"{statistics.median(each_more_us):,.1f}" if each_more_us else "-",
        f"{median(lambda run: run.usage.peak_mb):,.0f}",
        f"{median(lambda run: run.usage.wall_s):.1f}",
    ]


if __name__ == "__main__":
    main()
