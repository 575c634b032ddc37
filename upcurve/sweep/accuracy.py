"""The accuracy section of a recipe: what is asked, at which points, and what passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from upcurve.accuracy.evaluation import Setting
from upcurve.accuracy.gate import Gate, Minimum, NonInferiority
from upcurve.accuracy.scoring import Metric
from upcurve.accuracy.task import Name, Task, load_task
from upcurve.errors import InputError
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import frontier_of_repeats
from upcurve.load.target import Endpoint
from upcurve.sweep.section import Positive, Section, Text

Axis = Literal["interactivity", "tput_per_gpu"]
"""Of a target: where it lies on the frontier."""
Where = Literal["frontier", "all"] | Annotated[list[Positive], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Accuracy(Section):
    """What is asked of the engine that a point was measured on, and what has to come of it."""

    task: Name
    data: Text | None = None
    """Of gsm8k: a file of items, or a folder with test and train."""
    limit: Positive | None = None
    """Items to ask, from the first; by default all."""
    shots: Annotated[int, Field(ge=0)] | None = None
    """Worked examples before each question; by default the task's own number."""
    max_tokens: Positive | None = None
    """Output tokens of an answer at most; by default the task's own number."""
    endpoint: Endpoint = "completions"
    metric: Metric = "strict"
    """Which score the gate is about."""
    context: Positive | Literal["isl", "task"] = "isl"
    """Tokens that prompts are brought up to with further examples: the workload's own input
    length; a number; or task, which leaves them as they are."""
    minimum: Share | None = None
    """The least score that passes."""
    baseline: Text | None = None
    """Or: a series that the score may not be below by more than `margin`."""
    margin: Share | None = None
    power: Share = 0.8
    """Wanted of the test against the baseline; a failure below it says how many items it takes."""
    where: Where = "frontier"
    """At which points: both ends and the middle of the frontier and the neighbours of every
    target; all; or a list of concurrencies."""
    targets: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    """Interactivities in tok/s/user whose neighbours on the frontier are evaluated too."""
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds until an answer counts as missing."""

    @model_validator(mode="after")
    def _check_gate(self) -> Self:
        if (self.minimum is None) == (self.baseline is None):
            mend = "give minimum: 0.9, or baseline: SERIES and margin: 0.02"
            raise InputError("accuracy", "it has one gate, a minimum or a baseline", mend)
        if (self.baseline is None) != (self.margin is None):
            raise InputError("accuracy", "a baseline goes with a margin", "give both or none")
        return self

    @property
    def gate(self) -> Gate:
        """What the score has to be."""
        if self.minimum is not None:
            return Minimum(self.minimum)
        assert self.baseline is not None, "checked as it was read"
        assert self.margin is not None, "checked as it was read"
        return NonInferiority(self.baseline, self.margin, self.power)

    def load(self) -> Task:
        """Return the task; its files are read once.

        Raises:
            InputError: they cannot be used.
        """
        return _task(self.task, self.data, self.limit, self.shots, self.max_tokens)

    def describe(self) -> str:
        """Return what is asked where, and what passes, in one line."""
        task = self.load()
        bar = f"at least {self.minimum:g}"
        if self.baseline is not None:
            bar = f"at most {self.margin:g} below {self.baseline}"
        where = "both ends, the middle and the neighbours of targets"
        if self.where == "all":
            where = "every concurrency"
        elif isinstance(self.where, list):
            where = f"concurrency {', '.join(map(str, self.where))}"
        return (
            f"accuracy: {task.name} {task.version}, {len(task.items):,} items, {self.metric} match "
            f"{bar}; at {where}"
        )

    def setting(self, concurrency: int, isl: int) -> Setting:
        """Return how the task is asked at a point.

        Args:
            concurrency: of the point.
            isl: input length of the point, in tokens.
        """
        given = {"isl": isl, "task": None}
        context = given[self.context] if isinstance(self.context, str) else self.context
        return Setting(concurrency, context, self.timeout_s)

    def matches(self, outcome: Mapping[str, Any], isl: int) -> bool:
        """Whether an outcome of the store is of this very section."""
        asked = {
            **self.load().facts(),
            "metric": self.metric,
            "endpoint": self.endpoint,
            "context": self.setting(1, isl).context,
            "minimum": self.minimum,
            "baseline": self.baseline,
            "margin": self.margin,
        }
        return all(outcome.get(key) == value for key, value in asked.items())

    def places(self, points: Sequence[Point], targets: Sequence[tuple[Axis, float]]) -> set[int]:
        """Return the concurrencies that are to be evaluated.

        Args:
            points: what is known of the recipe, repeats included.
            targets: axis and value of further targets.
        """
        if isinstance(self.where, list):
            return set(self.where)
        if self.where == "all":
            return {each.concurrency for each in points}
        knots = frontier_of_repeats(points)
        if not knots:
            return set()
        chosen = [knots[0], knots[-1], knots[len(knots) // 2]]
        own: list[tuple[Axis, float]] = [("interactivity", each) for each in self.targets]
        for axis, value in (*own, *targets):
            chosen += _neighbours(knots, axis, value)
        return {each.concurrency for each in chosen}


def _neighbours(knots: Sequence[Point], axis: Axis, value: float) -> list[Point]:
    """Return the frontier points next to a value, on both sides where there are two."""
    below = [each for each in knots if getattr(each, axis) <= value]
    above = [each for each in knots if getattr(each, axis) >= value]
    return [
        *([max(below, key=lambda each: float(getattr(each, axis)))] if below else []),
        *([min(above, key=lambda each: float(getattr(each, axis)))] if above else []),
    ]


@lru_cache(maxsize=8)
def _task(
    name: Name, data: str | None, limit: int | None, shots: int | None, max_tokens: int | None
) -> Task:
    path = None if data is None else Path(data)
    return load_task(name, path, limit=limit, shots=shots, max_tokens=max_tokens)
