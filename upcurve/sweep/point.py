"""One point of a recipe: load on a running engine -> a record and its trace."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow
import uvloop

from upcurve.errors import InputError
from upcurve.load.client import measure, probe
from upcurve.load.health import ClientHealth
from upcurve.load.metrics import point_metrics
from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace, to_table
from upcurve.load.workload import Workload
from upcurve.records.run import PointRecord
from upcurve.sweep.engine_process import EngineProcess
from upcurve.sweep.facts import engine_environment
from upcurve.sweep.recipe import Recipe

WATCH_S = 0.25
"""Seconds between two looks at whether the engine lives while it is measured."""

RECOVERY_S = 60.0
"""Seconds that an engine has to answer again after requests failed."""


class PointError(Exception):
    """A living engine gave no figures for a point."""


class Measurement:
    """A running engine under load; `probe` comes first, once."""

    def __init__(self, recipe: Recipe, host: str, port: int, engine: EngineProcess) -> None:
        self._recipe = recipe
        self._host, self._port = host, port
        self._engine = engine
        self._timeout_s = recipe.workload.timeout_s
        # The engine inherits the key too, and `upcurve serve` then asks for it.
        key = engine_environment(recipe).get("UPCURVE_API_KEY")
        self._target = Target(f"http://{host}:{port}", recipe.served_model_name, key or None)

    def probe(self) -> None:
        """Ask the engine for one answer, and learn what it understands.

        Raises:
            EngineError: it died.
            PointError: it refuses the model or the lengths.
        """
        workload = self._workload("probe")
        self._target = self._run(lambda: probe(self._target, workload, timeout_s=self._timeout_s))

    def point(
        self, concurrency: int, *, repeat: int, progress: Callable[[int, int], None]
    ) -> tuple[PointRecord, pyarrow.Table]:
        """Measure one point.

        Args:
            concurrency: requests in flight.
            repeat: the point's repeat index.
            progress: told how many requests of how many have ended, warm-up included.

        Raises:
            EngineError: the engine died, or does not recover after requests failed.
            PointError: no request gave figures.
        """
        recipe, workload = self._recipe, self._workload(f"c{concurrency}")
        requests = concurrency * recipe.workload.requests_per_stream
        warmup = concurrency * recipe.workload.warmup
        started = datetime.now(UTC)
        ended = 0

        def count(_: RequestTrace) -> None:
            nonlocal ended
            ended += 1
            progress(ended, requests + warmup)

        traces, health = self._run(
            lambda: measure(
                self._target,
                workload,
                concurrency=concurrency,
                requests=requests,
                warmup=warmup,
                timeout_s=self._timeout_s,
                progress=count,
            )
        )
        if any(trace.failure for trace in traces):
            self._check_recovery()
        return self._record(traces, health, workload, concurrency, repeat, started)

    def _record(
        self,
        traces: Sequence[RequestTrace],
        health: ClientHealth,
        workload: Workload,
        concurrency: int,
        repeat: int,
        started: datetime,
    ) -> tuple[PointRecord, pyarrow.Table]:
        recipe = self._recipe
        figures = point_metrics(traces, health, workload, concurrency=concurrency, gpus=recipe.gpus)
        if figures["tput_per_gpu"] is None or figures["interactivity"] is None:
            raise PointError(_why_nothing(traces))
        point = PointRecord.of_figures(
            figures, tp=recipe.tp, gpus=recipe.gpus, repeat=repeat, measured_at=started
        )
        return point, to_table(traces)

    def _workload(self, salt: str) -> Workload:
        # Rounds send the same prompts, each to a fresh engine; points of one engine do not.
        traffic = self._recipe.workload
        low, high = traffic.vocabulary
        return Workload(
            isl=traffic.isl, osl=traffic.osl, seed=traffic.seed, vocabulary=(low, high), salt=salt
        )

    def _run(self, work: Callable[[], Any]) -> Any:
        """Run the client in an event loop of its own, until it ends or the engine dies."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(self._watched(work))
        except InputError as error:
            self._check_recovery()
            raise PointError(str(error)) from error
        self._engine.check()
        return found

    def _check_recovery(self) -> None:
        """Raise `EngineError` where the engine is dead or dying rather than refusing a request."""
        path = self._recipe.engine.health.path
        self._engine.wait_until_ready(self._host, self._port, path, RECOVERY_S)

    async def _watched(self, work: Callable[[], Any]) -> Any:
        client = asyncio.ensure_future(work())
        try:
            while self._engine.running:
                done, _ = await asyncio.wait({client}, timeout=WATCH_S)
                if done:
                    break
            else:
                return None
        finally:
            if not client.done():
                client.cancel()
                await asyncio.wait({client})
        return client.result()


def _why_nothing(traces: Sequence[RequestTrace]) -> str:
    kinds = Counter(trace.failure for trace in traces if trace.failure)
    if not kinds:
        return "no request gave figures: TPOT needs two output tokens that arrive apart"
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    detail = next((trace.detail for trace in traces if trace.detail), None)
    return f"every request failed ({counts})" + (f": {detail}" if detail else "")
