"""`upcurve bench`: measure a running server under loads that are asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

from upcurve.cli.bench_files import SaveFile, save
from upcurve.cli.bench_plan import Plan, plan_of
from upcurve.cli.bench_record import previous_points, recording, run_record
from upcurve.cli.bench_view import View, print_points, print_search, print_warnings
from upcurve.cli.options import FiniteRange, Name, NumberList, json_option, store_option
from upcurve.load.search import strain
from upcurve.load.session import Result, Session
from upcurve.sweep.interruption import sigterm_interrupts

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_WORKLOAD = click.IntRange(min=1)
_POSITIVE = FiniteRange(min=0, min_open=True)


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


def _help_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if not value or ctx.resilient_parsing:
        return
    for each in ctx.command.params:
        if isinstance(each, click.Option):
            each.hidden = False
    click.echo(ctx.get_help())
    ctx.exit()


def usual(*names: str, **settings: Any) -> Decorator:
    """Return an option that `--help` shows."""
    return click.option(*names, **settings)


def further(*names: str, **settings: Any) -> Decorator:
    """Return an option that only `--help-all` shows."""
    return click.option(*names, hidden=True, **settings)


@click.command()
@usual("--base-url", metavar="URL", help="E.g. http://127.0.0.1:8000")
@usual("--model", type=Name(), metavar="NAME", help="Name that the server serves.")
@usual("--isl", metavar="TOKENS", help="Input: 8192, uniform:0.8:8192, normal:1024:200, ...")
@usual("--osl", metavar="TOKENS", help="Output, in the same forms.")
@usual(
    "--concurrency",
    type=NumberList(integers=True),
    metavar="N,N,...",
    help="Closed loop: requests in flight; one point each.",
)
@usual(
    "--rate", type=NumberList(), metavar="R,R,...", help="Open loop: requests/s; one point each."
)
@further("--requests", type=_WORKLOAD, metavar="N", help="Measured requests of each point.")
@usual(
    "--requests-per-stream",
    type=_WORKLOAD,
    metavar="N",
    help="Or: per request in flight.  [default: 4; open loop: 30 s of requests]",
)
@usual("--duration", type=_POSITIVE, metavar="SECONDS", help="Or: for so long.")
@usual("--repeats", type=_WORKLOAD, default=1, metavar="N", help="Rounds over all points.")
@usual(
    "--search",
    metavar="LIMITS",
    help="Find the highest load within e.g. 'ttft_p99<1s,tpot<25ms', between two loads.",
)
@further("--goodput", metavar="LIMITS", help="Count requests within e.g. ttft=1000,tpot=25 (ms).")
@usual("--endpoint", type=click.Choice(["completions", "chat"]), default="completions")
@usual("--tokenizer", metavar="PATH", help="Send text, counted by this tokenizer.json.")
@usual("--dataset", metavar="FILE", help="Send the prompts of JSON lines or a ShareGPT file.")
@usual(
    "--series", type=Name(), metavar="NAME", help="Keep the points in the store under this name."
)
@further("--resume", is_flag=True, help="Measure only what the series lacks.")
@usual("--gpus", type=_WORKLOAD, metavar="N", help="That serve it.  [default: by the layout]")
@further("--hardware", default="", metavar="NAME", help="As in price tables: MI355X, H200, ...")
@usual("--strict", is_flag=True, help="Exit 1, and keep no point, where the client was too busy.")
@usual("--calibrate", is_flag=True, help="Measure what this client can carry here; keep it.")
@usual(
    "--save",
    type=SaveFile(),
    multiple=True,
    metavar="FILE",
    help="Points as .json or .csv, requests as .parquet; repeatable.",
)
@json_option
@store_option
@usual(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_all,
    help="Show all options.",
)
@further("--api-key", envvar="UPCURVE_API_KEY", show_envvar=True, help="Never stored.")
@further("--warmup", type=_WORKLOAD, help="Requests before each point.  [least: one per stream]")
@further("--ramp", type=_POSITIVE, metavar="SECONDS", help="Until the whole load is there.")
@further(
    "--arrivals",
    type=click.Choice(["constant", "poisson", "gamma"]),
    default="poisson",
    show_default=True,
    help="Of an open loop.",
)
@further(
    "--burstiness",
    type=_POSITIVE,
    default=1.0,
    show_default=True,
    help="Shape of gamma gaps: below 1 burstier than Poisson, above 1 more even.",
)
@further("--max-in-flight", type=_WORKLOAD, help="Of an open loop; waiting is latency.")
@further("--seed", type=int, help="Of the prompts.  [default: drawn anew, and recorded]")
@further(
    "--vocabulary",
    type=Vocabulary(),
    default="256:1280",
    show_default=True,
    help="Token ids that prompts are drawn from.",
)
@further("--shared-prefix", metavar="TOKENS[:COUNT]", help="Beginnings that prompts share.")
@further("--dataset-format", type=click.Choice(["auto", "jsonl", "sharegpt"]), default="auto")
@further("--dataset-repeat", is_flag=True, help="Its prompts may be sent more than once.")
@further(
    "--timeout",
    type=_POSITIVE,
    default=600.0,
    show_default=True,
    help="Seconds until a request counts as failed.",
)
@further("--workers", type=_WORKLOAD, help="Measuring processes at most.  [default: cores - 1]")
@further("--tp", type=_WORKLOAD, default=1, show_default=True, help="Tensor parallelism.")
@further("--ep", type=_WORKLOAD, default=1, show_default=True, help="Expert parallelism.")
@further("--dp", type=_WORKLOAD, default=1, show_default=True, help="Replicas.")
@further("--prefill-gpus", type=_WORKLOAD, help="GPUs that compute prompts alone.")
@further("--decode-gpus", type=_WORKLOAD, help="GPUs that compute outputs alone.")
@further("--precision", default="", help="Recorded with the run: fp8, bf16, ...")
@further("--metrics-url", metavar="URL", help="Prometheus page.  [default: the server's /metrics]")
@further("--metrics/--no-metrics", default=True, help="Read the server's metrics along the run.")
@further(
    "--gpu-index",
    type=int,
    multiple=True,
    help="GPUs of this machine to watch.  [default: all, where the server is local]",
)
def command(**given: Any) -> int:
    """Measure a running OpenAI-compatible server, and the client with it.

    Prompts are random token ids of exact length, all distinct; each answer is asked for in exact
    length. Exit code 1: a point without a request that succeeded; with --strict, one whose
    figures are not to be trusted.

    \b
    Example:
      upcurve bench --base-url http://127.0.0.1:8000 --model qwen --isl 1024 --osl 128 \\
        --concurrency 4,8,16
    """  # noqa: D301
    if given["calibrate"]:
        from upcurve.cli.bench_calibrate import calibrate_here

        return calibrate_here(given["workers"], as_json=given["as_json"])
    given["gpu_index"] = given["gpu_index"] or None
    if given["resume"] and given["series"] is None:
        raise click.UsageError("--resume needs --series: it measures what that series lacks")
    plan = plan_of(given)
    if given["series"] is not None and plan.workload.exact_output and plan.workload.osl == 1:
        raise click.UsageError("a point of a series has a pace: give --osl 2 or more")
    with ExitStack() as stack:
        stack.enter_context(sigterm_interrupts())
        return _Bench(plan, given, stack).run()


class _Bench:
    """One invocation: what was measured so far, and where it goes."""

    def __init__(self, plan: Plan, given: dict[str, Any], stack: ExitStack) -> None:
        self._plan = plan
        self._given = given
        self._view = stack.enter_context(View(plan))
        self._session = stack.enter_context(Session(plan.target, plan.settings))
        self._found: list[tuple[int, float, dict[str, Any]]] = []
        self._traces: list[tuple[int, float, Result]] = []
        self._refused = False
        self._stack = stack

    def run(self) -> int:
        plan, given = self._plan, self._given
        self._session.probe(plan.workload)
        if self._session.limits is None:
            self._view.say("not calibrated: `upcurve bench --calibrate` measures what it can carry")
        keep = done = None
        if given["series"] is not None:
            record = run_record(
                plan, self._session, given["series"], given["hardware"], given["precision"]
            )
            if given["resume"]:
                done = previous_points(given["store"], record, plan)
            keep = self._stack.enter_context(recording(given["store"], record, plan.layout))
        answer = None
        if plan.search is None:
            for repeat, level in plan.points():
                self._point(repeat, level, keep, (done or {}).get((repeat, level)))
        else:
            answer = self._search(keep, done or {})
        self._view.close()
        return self._report(answer)

    def _search(self, keep: Any, done: dict[tuple[int, float], dict[str, Any]]) -> float | None:
        """Find the highest load within the limits."""
        search = self._plan.search
        assert search is not None, "asked only where there is one"
        tried: dict[float, float] = {}
        for (_, level), figures in done.items():
            if search.lowest <= level <= search.highest:
                tried[level] = strain(self._plan.limits, figures)
                self._found.append((0, level, figures))
        while (following := search.next(tried)) is not None:
            figures = self._point(0, following, keep, None)
            tried[following] = strain(self._plan.limits, figures)
        return search.answer(tried)

    def _point(
        self, repeat: int, level: float, keep: Any, before: dict[str, Any] | None
    ) -> dict[str, Any]:
        plan = self._plan
        if before is not None:
            self._found.append((repeat, level, before))
            self._view.say(f"{plan.label(level, repeat)}: measured before")
            return before
        self._view.begin(level, repeat)
        result = self._session.point(
            plan.workload_at(level, repeat),
            plan.load(level, repeat),
            warmup=plan.warmup(level),
            watch=self._view.watch,
        )
        figures = result.figures
        self._view.end(level, repeat, figures)
        self._found.append((repeat, level, figures))
        if any(each.format == "parquet" for each in self._given["save"]):
            self._traces.append((repeat, level, result))
        refused = self._given["strict"] and not figures["client"]["trusted"]
        self._refused |= refused
        if keep is not None and not refused:
            keep(repeat, figures, result)
        if self._given["as_json"]:
            click.echo(json.dumps({"repeat": repeat, **figures}))
            sys.stdout.flush()
        return figures

    def _report(self, answer: float | None) -> int:
        plan, given = self._plan, self._given
        for file in given["save"]:
            save(file, self._found, self._traces)
        if not given["as_json"]:
            print_points(plan, self._found)
        print_warnings(plan, self._found)
        if plan.search is not None:
            print_search(plan, answer, as_json=given["as_json"])
        empty = any(each["requests"] == each["failed"] for _, _, each in self._found)
        if self._refused:
            click.echo("upcurve: error: strict: marked points are refused", err=True)
        return int(empty or self._refused or (plan.search is not None and answer is None))
