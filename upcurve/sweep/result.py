"""What a sweep tells while it runs, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from upcurve.accuracy.evaluation import Asked
from upcurve.frontier.point import Point
from upcurve.records.facts import as_point
from upcurve.records.run import PointRecord, RunRecord
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch
from upcurve.sweep.recipe import Recipe


class Progress(Protocol):
    """Who watches a sweep; each call returns at once."""

    def planned(self, launches: Sequence[Launch]) -> None:
        """All launches of the sweep are known."""

    def launching(self, launch: Launch, run_id: str) -> None:
        """An engine is being launched."""

    def ready(self, launch: Launch, seconds: float) -> None:
        """The engine answers, `seconds` after its launch."""

    def measuring(self, launch: Launch, concurrency: int) -> None:
        """A point is being measured."""

    def request_ended(self, launch: Launch, ended: int, of: int) -> None:
        """A request of the point that is being measured has ended; one call for each."""

    def measured(self, measured: Measured) -> None:
        """A point is measured and stored."""

    def failed(self, failure: Failure) -> None:
        """A launch or a point failed; the sweep goes on."""

    def evaluating(self, launch: Launch, concurrency: int, state: Asked) -> None:
        """The accuracy at a point is being evaluated; called a few times a second."""

    def evaluated(self, outcome: GateOutcome) -> None:
        """The accuracy at a point is known and stored."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A point that is measured and stored."""

    launch: Launch
    run_id: str
    point: PointRecord

    @property
    def seen(self) -> Point:
        """The point as a comparison sees it."""
        return as_point(self.point)


@dataclass(frozen=True, slots=True)
class Failure:
    """A launch, or one point of it, that gave nothing."""

    launch: Launch
    run_id: str
    concurrency: int | None
    """The point; None where the engine did not get so far as to be measured."""
    problem: str
    """What happened, with the last lines of the engine's log where it died."""
    lost: tuple[int, ...]
    """The concurrencies that this launch did not measure because of it."""
    refused: bool = False
    """Whether every launch of this recipe would fail alike."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep measured, in the order of measuring, and what failed."""

    points: list[Measured] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    """Points that the store held already."""
    gates: list[GateOutcome] = field(default_factory=list)
    """What the accuracy gates said; on resuming also what the store held."""
    ungated: list[tuple[Recipe, int]] = field(default_factory=list)
    """Recipes, and the concurrencies at which their gate has no outcome in the end."""

    def seen(self, record: RunRecord) -> list[Point]:
        """Return the measured points of a recipe, by what its launches are recorded with."""
        return [each.seen for each in self.points if each.launch.record is record]
