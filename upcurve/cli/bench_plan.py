"""What a bench was asked for: options -> server, workload, loads."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from upcurve.cli.bench_workload import workload_of
from upcurve.errors import InputError
from upcurve.load.arrivals import ClosedLoop, Load, OpenLoop, Process
from upcurve.load.metrics import Goal
from upcurve.load.search import Limit, Search, parse_limits
from upcurve.load.session import Settings
from upcurve.load.target import Endpoint, Target, environment_proxy
from upcurve.load.workload import DatasetWorkload, Workload
from upcurve.records.layout import Layout, gpus_of

DEFAULT_PER_STREAM = 4
"""Measured requests of a stream where neither a number nor a duration is given."""

DEFAULT_OPEN_S = 30.0
"""Seconds that an open loop lasts where neither a number nor a duration is given."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is sent at each level."""

    requests: int | None
    per_stream: int | None
    duration_s: float | None
    warmup: int | None
    ramp_s: float | None
    least: int = 1
    """Fewest requests, so that what is searched by can be judged."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How an open loop spaces its requests."""

    process: Process
    burstiness: float
    limit: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is measured."""

    target: Target
    workload: Workload
    levels: tuple[float, ...]
    """Streams, or requests per second where `arrivals` is given."""
    arrivals: Arrivals | None
    amount: Amount
    repeats: int
    seed: int
    settings: Settings
    layout: Layout
    limits: tuple[Limit, ...] = ()
    """What is searched by; () where the levels are measured as they are."""

    @property
    def search(self) -> Search | None:
        """How levels are searched, None where they are given."""
        if not self.limits:
            return None
        return Search(self.levels[0], self.levels[1], whole=self.arrivals is None)

    def points(self) -> Iterator[tuple[int, float]]:
        """Yield (repeat, level); repeats interleave, so that a drift hits all alike."""
        for repeat in range(self.repeats):
            for level in self.levels:
                yield repeat, level

    def load(self, level: float, repeat: int = 0) -> Load:
        """Return the load of a level."""
        amount = self.amount
        if self.arrivals is None:
            streams = round(level)
            requests = amount.requests or (amount.per_stream or DEFAULT_PER_STREAM) * streams
            return ClosedLoop(
                streams,
                requests=None if amount.duration_s else max(requests, amount.least),
                duration_s=amount.duration_s,
                ramp_s=amount.ramp_s,
            )
        requests = amount.requests or math.ceil(level * DEFAULT_OPEN_S)
        return OpenLoop(
            level,
            self.arrivals.process,
            self.arrivals.burstiness,
            requests=None if amount.duration_s else max(requests, amount.least),
            duration_s=amount.duration_s,
            ramp_s=amount.ramp_s or 0.0,
            limit=self.arrivals.limit,
            seed=(self.seed + repeat) % 2**31,
        )

    def warmup(self, level: float) -> int:
        """Return the warm-up requests of a level: at least one per stream, or a second's worth."""
        least = math.ceil(level)
        return max(self.amount.warmup or 0, least)

    def workload_at(self, level: float, repeat: int) -> Workload:
        """Return the workload of a point, with prompts of its own."""
        workload = self.workload.salted(f"c{level:g} r{repeat}")
        if isinstance(workload, DatasetWorkload) and not workload.repeat:
            before = 0
            for other in self.points():
                if other == (repeat, level):
                    break
                before += self.load(other[1], other[0]).requests or 0
            workload = workload.after(before)
        return workload

    def label(self, level: float, repeat: int) -> str:
        """Return how a point is called in what is printed."""
        kind = f"concurrency {level:g}" if self.arrivals is None else f"rate {level:g}/s"
        return f"{kind}, repeat {repeat + 1} of {self.repeats}" if self.repeats > 1 else kind


def plan_of(given: dict[str, Any]) -> Plan:
    """Return the plan that the options of `bench` describe.

    Raises:
        click.UsageError: options exclude each other, or one is missing.
        InputError: a value is out of range, or a file is no dataset or tokenizer.
    """
    for name in ("base_url", "model"):
        if given[name] is None:
            raise click.UsageError(f"Missing option '--{name.replace('_', '-')}'")
    open_loop = given["rate"] is not None
    levels = given["rate"] if open_loop else given["concurrency"]
    if open_loop and given["concurrency"]:
        raise click.UsageError("--rate and --concurrency exclude each other")
    limits = parse_limits(given["search"]) if given["search"] else ()
    if levels is None and not limits:
        raise click.UsageError("Missing option '--concurrency' (or '--rate')")
    levels = tuple(levels or (1, 1024))
    if limits and len(levels) != 2:
        raise click.UsageError("--search needs two loads, the lowest and the highest: 1,1024")
    if len(set(levels)) < len(levels):
        raise click.UsageError("--concurrency names a value twice; --repeats measures all again")
    if limits and given["repeats"] > 1:
        raise click.UsageError("--search and --repeats exclude each other")
    # A seed that a server has seen would be served from its prefix cache.
    seed = secrets.randbelow(2**31) if given["seed"] is None else given["seed"]
    layout = _layout(given)
    plan = Plan(
        target=Target(
            given["base_url"],
            given["model"],
            given["api_key"],
            endpoint=_endpoint(given),
            proxy=environment_proxy(given["base_url"]),
        ),
        workload=workload_of(given, seed),
        levels=levels,
        arrivals=_arrivals(given) if open_loop else None,
        amount=_amount(given, open_loop, max((each.samples for each in limits), default=1)),
        repeats=given["repeats"],
        seed=seed,
        settings=Settings(
            gpus=layout.gpus,
            workers=given["workers"],
            timeout_s=given["timeout"],
            goal=_goal(given["goodput"]),
            metrics_url=given["metrics_url"],
            scrape=given["metrics"],
            gpu_indices=None if given["gpu_index"] is None else tuple(given["gpu_index"]),
        ),
        layout=layout,
        limits=limits,
    )
    for repeat, level in plan.points():  # bad values are said before anything is sent
        plan.workload_at(level, repeat).require(plan.load(level, repeat).requests or 1)
    return plan


def _endpoint(given: dict[str, Any]) -> Endpoint:
    endpoint: Endpoint = given["endpoint"]
    text = given["tokenizer"] or given["dataset"]
    if endpoint == "chat" and not text:
        mend = "give --tokenizer FOLDER or --dataset FILE"
        raise InputError("endpoint", "chat takes text, and token ids are none", mend)
    return endpoint


def _arrivals(given: dict[str, Any]) -> Arrivals:
    return Arrivals(given["arrivals"], given["burstiness"], given["max_in_flight"])


def _layout(given: dict[str, Any]) -> Layout:
    apart = {name: given[name] for name in ("prefill_gpus", "decode_gpus")}
    gpus = given["gpus"] or gpus_of(tp=given["tp"], dp=given["dp"], **apart)
    return Layout(given["tp"], given["ep"], given["dp"], gpus, **apart)


def _amount(given: dict[str, Any], open_loop: bool, least: int) -> Amount:
    named = ("requests", "requests_per_stream", "duration")
    if sum(given[name] is not None for name in named) > 1:
        raise click.UsageError(
            "--requests, --requests-per-stream and --duration exclude each other"
        )
    if open_loop and given["requests_per_stream"]:
        raise click.UsageError("an open loop has no streams: give --requests or --duration")
    spaced = given["arrivals"] != "poisson" or given["burstiness"] != 1.0
    if not open_loop and (given["max_in_flight"] or spaced):
        options = "--arrivals, --burstiness and --max-in-flight"
        raise click.UsageError(f"{options} belong to an open loop: --rate")
    return Amount(
        requests=given["requests"],
        per_stream=given["requests_per_stream"],
        duration_s=given["duration"],
        warmup=given["warmup"],
        ramp_s=given["ramp"],
        least=least,
    )


def _goal(text: str | None) -> Goal | None:
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            found[f"{name.strip().lower()}_ms"] = float(value)
        except ValueError:
            found["?"] = 0.0
    if set(found) - {"ttft_ms", "tpot_ms"}:
        raise InputError("goodput", f"{text!r} is no goal", "give e.g. ttft=1000,tpot=25 (ms)")
    return Goal(**found)
