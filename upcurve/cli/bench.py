"""`upcurve bench`: measure a running server at given concurrencies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import click
import pyarrow
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from upcurve.cli.bench_record import Grid, recording, run_record
from upcurve.cli.options import NumberList, json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.load.client import run_measure, run_probe
from upcurve.load.metrics import point_metrics
from upcurve.load.target import Target
from upcurve.load.trace import to_table
from upcurve.load.workload import Workload
from upcurve.sweep.interruption import sigterm_interrupts


class Vocabulary(click.ParamType[tuple[int, int]]):
    """A range of token ids: `256:1280`."""

    name = "LOW:HIGH"

    def convert(
        self,
        value: str | tuple[int, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        """Parse the range; fail with one line where it is none."""
        if isinstance(value, tuple):
            return value
        low, _, high = value.partition(":")
        try:
            return int(low), int(high)
        except ValueError:
            self.fail(f"{value!r} is no range of token ids; give e.g. 256:1280", param, ctx)


@click.command()
@click.option("--base-url", required=True, metavar="URL", help="E.g. http://127.0.0.1:8000")
@click.option("--model", required=True, metavar="NAME", help="Name that the server serves.")
@click.option("--isl", required=True, type=click.IntRange(min=1), help="Input tokens, exact.")
@click.option("--osl", required=True, type=click.IntRange(min=1), help="Output tokens, exact.")
@click.option(
    "--concurrency",
    required=True,
    type=NumberList(integers=True),
    metavar="N,N,...",
    help="Requests in flight; one point each.",
)
@click.option("--requests", type=click.IntRange(min=1), help="Measured requests of each point.")
@click.option(
    "--requests-per-stream",
    type=click.IntRange(min=1),
    help="Or: measured requests per request in flight.  [default: 4]",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=1),
    help="Requests before each point, with other prompts.  [default and least: the concurrency]",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Rounds over all concurrencies.",
)
@click.option("--seed", type=int, help="Of the prompts.  [default: drawn anew, and recorded]")
@click.option(
    "--vocabulary",
    type=Vocabulary(),
    default="256:1280",
    show_default=True,
    help="Token ids that prompts are drawn from.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds until a request counts as failed.",
)
@click.option("--api-key", envvar="UPCURVE_API_KEY", show_envvar=True, help="Never stored.")
@click.option("--gpus", type=click.IntRange(min=1), help="That serve it.  [default: --tp]")
@click.option(
    "--tp", type=click.IntRange(min=1), default=1, show_default=True, help="Tensor parallelism."
)
@click.option("--hardware", default="", help="GPU name as in price tables: MI355X, H200, ...")
@click.option("--precision", default="", help="Recorded with the run: fp8, bf16, ...")
@click.option("--series", metavar="NAME", help="Keep the points in the store under this name.")
@json_option
@store_option
def command(
    base_url: str,
    model: str,
    isl: int,
    osl: int,
    concurrency: list[int],
    requests: int | None,
    requests_per_stream: int | None,
    warmup: int | None,
    repeats: int,
    seed: int | None,
    vocabulary: tuple[int, int],
    timeout: float,
    api_key: str | None,
    gpus: int | None,
    tp: int,
    hardware: str,
    precision: str,
    series: str | None,
    as_json: bool,
    store: str,
) -> int:
    """Measure a running OpenAI-compatible server in a closed loop.

    Prompts are random token ids of the exact length, all distinct; each answer is asked for in
    the exact length. Exit code 1 where a point has no request that succeeded.

    \b
    Example:
      upcurve bench --base-url http://127.0.0.1:8000 --model qwen --isl 1024 --osl 128 \\
        --concurrency 4,8,16
      upcurve bench ... --series h200-mine --hardware H200 --gpus 8 --tp 8 --repeats 3
    """  # noqa: D301
    if requests and requests_per_stream:
        raise click.UsageError("--requests and --requests-per-stream exclude each other")
    if len(set(concurrency)) < len(concurrency):
        raise click.UsageError("--concurrency names a value twice; --repeats measures all again")
    if requests and requests < max(concurrency):
        problem = f"--requests {requests} cannot fill {max(concurrency)} streams"
        raise click.UsageError(f"{problem}; give at least {max(concurrency)}")
    gpus = gpus or tp
    if tp > gpus:
        raise click.UsageError(f"--tp {tp} does not fit on --gpus {gpus}; correct one of them")
    if series is not None and osl == 1:
        raise click.UsageError("a point of a series has a pace: give --osl 2 or more")
    if seed is None:
        # A seed that a server has seen would be served from its prefix cache.
        seed = secrets.randbelow(2**31)
    grid = Grid(
        workload=Workload(isl=isl, osl=osl, seed=seed, vocabulary=vocabulary),
        concurrency=concurrency,
        repeats=repeats,
        requests=requests,
        requests_per_stream=requests_per_stream or 4,
        warmup=warmup,
        timeout_s=timeout,
    )
    target = Target(base_url, model, api_key)
    target = run_probe(target, grid.workload, timeout_s=timeout)
    results = []
    with ExitStack() as stack:
        stack.enter_context(sigterm_interrupts())
        keep = None
        if series is not None:
            record = run_record(grid, target, series, hardware, precision)
            keep = stack.enter_context(recording(store, record, tp, gpus))
        for repeat, point, trace in _measured(grid, target, gpus):
            results.append((repeat, point))
            if keep is not None:
                keep(repeat, point, trace)
            if as_json:
                click.echo(json.dumps({"repeat": repeat, **point}))
    if not as_json:
        _print_table(results, grid)
    for repeat, point in results:
        for words in point["warnings"]:
            click.echo(f"upcurve: warning: {_label(grid, repeat, point)}: {words}", err=True)
    return int(any(point["requests"] == point["failed"] for _, point in results))


def _measured(
    grid: Grid, target: Target, gpus: int
) -> Iterator[tuple[int, dict[str, Any], pyarrow.Table]]:
    """Yield repeat, figures and trace of each point as soon as it is measured."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,  # each refresh is time that the client does not read
        disable=not console.is_terminal,
        transient=True,
    )
    total = sum(grid.requests_at(c) + grid.warmup_at(c) for _, c in grid.points())
    with bar:
        task = bar.add_task("", total=total)
        for repeat, concurrency in grid.points():
            of = f", repeat {repeat + 1} of {grid.repeats}" if grid.repeats > 1 else ""
            bar.update(task, description=f"concurrency {concurrency}{of}")
            workload = replace(grid.workload, salt=f"c{concurrency} r{repeat}")
            traces, health = run_measure(
                target,
                workload,
                concurrency=concurrency,
                requests=grid.requests_at(concurrency),
                warmup=grid.warmup_at(concurrency),
                timeout_s=grid.timeout_s,
                progress=lambda _: bar.advance(task),
            )
            point = point_metrics(traces, health, workload, concurrency=concurrency, gpus=gpus)
            console.print(f"concurrency {concurrency}{of}: {_in_brief(point)}", soft_wrap=True)
            yield repeat, point, to_table(traces)


def _in_brief(point: dict[str, Any]) -> str:
    failed = f", {point['failed']} of {point['requests']} failed" if point["failed"] else ""
    return (
        f"{_number(point['tput_per_gpu'])} tok/s/GPU, "
        f"{_number(point['interactivity'])} tok/s/user, "
        f"TTFT {_number(point['ttft_ms']['p50'])} ms in {point['duration_s']:.1f} s{failed}"
    )


def _label(grid: Grid, repeat: int, point: dict[str, Any]) -> str:
    of = f", repeat {repeat + 1}" if grid.repeats > 1 else ""
    return f"concurrency {point['concurrency']}{of}"


def _print_table(results: list[tuple[int, dict[str, Any]]], grid: Grid) -> None:
    table = Table(caption="latencies: medians; steady: while 90 % of the streams were in flight")
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {
        "tok/s\n/GPU": lambda point: point["tput_per_gpu"],
        "steady\n/GPU": lambda point: (point["steady_state"] or {}).get("tput_per_gpu"),
        "tok/s\n/user": lambda point: point["interactivity"],
        "TTFT\nms": lambda point: point["ttft_ms"]["p50"],
        "TPOT\nms": lambda point: point["tpot_ms"]["p50"],
        "E2E\nms": lambda point: point["e2e_ms"]["p50"],
    }
    heads = ["requests\nin flight", *(["repeat"] if grid.repeats > 1 else []), *columns]
    for head in [*heads, "requests\nin all", "failed"]:
        table.add_column(head, justify="right", no_wrap=True)
    for repeat, point in results:
        cells = [str(point["concurrency"]), *([str(repeat + 1)] if grid.repeats > 1 else [])]
        cells += [_number(value(point)) for value in columns.values()]
        table.add_row(*cells, str(point["requests"]), str(point["failed"]))
    print_table(table)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
