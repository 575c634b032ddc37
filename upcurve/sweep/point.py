"""One point of a recipe: load on a running engine -> a record and its trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from upcurve.accuracy.answers import AnswersFile
from upcurve.accuracy.evaluation import Asked, Evaluation, Setting, evaluate
from upcurve.closing import Closing
from upcurve.errors import InputError
from upcurve.load.arrivals import ClosedLoop
from upcurve.load.client import ClientError, Progress
from upcurve.load.session import Result, Session, Settings
from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import SyntheticWorkload
from upcurve.records.run import PointRecord
from upcurve.sweep.engine_process import EngineProcess
from upcurve.sweep.facts import engine_environment
from upcurve.sweep.recipe import Recipe

RECOVERY_S = 60.0
"""Seconds that an engine has to answer again after requests failed."""

Found = TypeVar("Found")


class PointError(Exception):
    """A living engine gave no figures for a point."""


class RefusedError(PointError):
    """A living engine refuses what each point would ask: another launch would as well."""


class Measurement(Closing):
    """A running engine under load, while its context is entered; `probe` comes first, once."""

    def __init__(self, recipe: Recipe, host: str, port: int, engine: EngineProcess) -> None:
        self._recipe = recipe
        self._host, self._port = host, port
        self._engine = engine
        # The engine inherits the key too, and `upcurve serve` then asks for it.
        key = engine_environment(recipe).get("UPCURVE_API_KEY")
        target = Target(f"http://{host}:{port}", recipe.served_model_name, key or None)
        settings = Settings(gpus=recipe.gpus, timeout_s=recipe.workload.timeout_s)
        self._session = Session(target, settings)

    def close(self) -> None:
        """End the measuring processes."""
        self._session.close()

    def probe(self) -> None:
        """Ask the engine for one answer, and learn what it understands.

        Raises:
            EngineError: it died.
            RefusedError: it refuses the key, the model or the lengths.
            PointError: it gives no answer.
        """
        try:
            self._run(lambda: self._session.probe(self._workload("probe"), self._look))
        except PointError as error:
            cause = error.__cause__
            if isinstance(cause, InputError) and cause.field != "base-url":
                raise RefusedError(str(error)) from cause
            raise

    def point(
        self, concurrency: int, *, repeat: int, progress: Callable[[int, int], None]
    ) -> tuple[PointRecord, Result]:
        """Measure one point; return its record and what it rests on.

        Args:
            concurrency: requests in flight.
            repeat: the point's repeat index.
            progress: told how many requests of how many have ended, warm-up included.

        Raises:
            EngineError: the engine died, or does not recover after requests failed.
            PointError: no request gave figures.
        """
        traffic = self._recipe.workload
        requests, warmup = concurrency * traffic.requests_per_stream, concurrency * traffic.warmup
        started = datetime.now(UTC)

        def look(state: Progress) -> None:
            self._look(state)
            before = 0 if state.phase == "warm-up" else warmup
            progress(before + state.ended, requests + warmup)

        result = self._run(
            lambda: self._session.point(
                self._workload(f"c{concurrency}"),
                ClosedLoop(concurrency, requests=requests),
                warmup=warmup,
                watch=look,
            )
        )
        if any(trace.failure for trace in result.traces):
            self._check_recovery()
        return self._record(result, repeat, started)

    def evaluate(
        self, concurrency: int, file: AnswersFile, progress: Callable[[Asked], None]
    ) -> tuple[Evaluation, Setting]:
        """Ask the task of the recipe's accuracy section at a point's concurrency and context.

        Args:
            concurrency: of the point.
            file: where answers are kept.
            progress: told how far it is, a few times a second.

        Raises:
            EngineError: the engine died.
            PointError: it refuses the first question.
        """
        accuracy = self._recipe.accuracy
        assert accuracy is not None, "asked only where there is one"
        target = replace(self._session.target, endpoint=accuracy.endpoint)
        setting = accuracy.setting(concurrency, self._recipe.workload.isl)

        def look(state: Asked) -> None:
            self._engine.check()
            progress(state)

        found = self._run(lambda: evaluate(target, accuracy.load(), setting, file, look))
        return found, setting

    def _record(self, result: Result, repeat: int, started: datetime) -> tuple[PointRecord, Result]:
        figures = result.figures
        if figures["tput_per_gpu"] is None or figures["interactivity"] is None:
            raise PointError(_why_nothing(result.traces))
        point = PointRecord.of_figures(
            figures, self._recipe.layout, repeat=repeat, measured_at=started
        )
        return point, result

    def _workload(self, salt: str) -> SyntheticWorkload:
        # Rounds send the same prompts, each to a fresh engine; points of one engine do not.
        traffic = self._recipe.workload
        low, high = traffic.vocabulary
        return SyntheticWorkload.exact(
            traffic.isl, traffic.osl, seed=traffic.seed, vocabulary=(low, high), salt=salt
        )

    def _run(self, work: Callable[[], Found]) -> Found:
        """Run the client until it ends or the engine dies."""
        try:
            found = work()
        except InputError as error:
            self._check_recovery()
            raise PointError(str(error)) from error
        except ClientError as error:
            self._engine.check()
            raise PointError(str(error)) from error
        self._engine.check()
        return found

    def _look(self, _: Progress) -> None:
        """End the measurement where the engine is gone."""
        self._engine.check()

    def _check_recovery(self) -> None:
        """Raise `EngineError` where the engine is dead or dying rather than refusing a request."""
        path = self._recipe.engine.health.path
        self._engine.wait_until_ready(self._host, self._port, path, RECOVERY_S)


def _why_nothing(traces: Sequence[RequestTrace]) -> str:
    kinds = Counter(trace.failure for trace in traces if trace.failure)
    if not kinds:
        return "no request gave figures: TPOT needs two output tokens that arrive apart"
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    detail = next((trace.detail for trace in traces if trace.detail), None)
    return f"every request failed ({counts})" + (f": {detail}" if detail else "")
