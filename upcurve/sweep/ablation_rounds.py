"""The rounds of an ablation: measured one after the other until shares are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from upcurve.frontier.attribution import Attribution, attribute
from upcurve.frontier.interpolation import DEFAULT_RULE
from upcurve.frontier.point import Point
from upcurve.frontier.rounds import read_rounds
from upcurve.frontier.shapley import Configuration
from upcurve.records.store import Store
from upcurve.sweep.ablation import Ablation
from upcurve.sweep.gate import GateOutcome, check_gates
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.launch_run import LaunchRun
from upcurve.sweep.plan import Launch
from upcurve.sweep.result import Failure, Progress, SweepResult
from upcurve.sweep.schedule import Schedule

Points = dict[Configuration, list[Point]]
"""What each configuration gave; a point's repeat is its round."""


@dataclass(slots=True)
class Outcome:
    """What an ablation measured and what it says, at every target."""

    points: Points = field(default_factory=lambda: defaultdict(list))
    rounds: int = 0
    """Rounds that were measured, by this or an earlier call."""
    failures: list[Failure] = field(default_factory=list)
    gates: list[GateOutcome] = field(default_factory=list)
    """What the accuracy gates said of configurations."""
    attributions: list[Attribution] = field(default_factory=list)


Split = Callable[[Points, int], list[Attribution]]
"""Points and how many rounds there are -> the move at every target."""


def splitter(
    schedule: Schedule,
    targets: Sequence[float],
    *,
    rule: str = DEFAULT_RULE,
    prices: Callable[[Configuration], float | None] = lambda _: None,
) -> Split:
    """Return how points become shares.

    Args:
        schedule: of the rounds.
        targets: interactivities in tok/s/user.
        rule: how to interpolate on a frontier.
        prices: USD per GPU-hour of a configuration; where one has none, there is no cost.
    """

    def split(points: Points, rounds: int) -> list[Attribution]:
        priced: Mapping[Configuration, float] = {
            on: price for on in points if (price := prices(on)) is not None
        }
        return [
            attribute(
                read_rounds(points, target, rule=rule, rounds=range(rounds)),
                schedule.switches,
                interactivity=target,
                design=schedule.design,
                orders=schedule.orders if schedule.design == "shapley" else None,
                prices=priced if len(priced) == len(points) else None,
            )
            for target in targets
        ]

    return split


def run_ablation(
    ablation: Ablation,
    store: Store,
    split: Split,
    *,
    rounds: int,
    max_rounds: int,
    precision: float,
    resume: bool,
    progress: Progress,
) -> Outcome:
    """Measure round after round until every share is known well enough.

    Args:
        ablation: what to measure.
        store: where every point is kept as soon as it is measured.
        split: how points become shares.
        rounds: rounds that are measured in any case.
        max_rounds: rounds after which it ends in any case.
        precision: wanted half width of every share's interval, in log ratio.
        resume: whether points that the store holds are not measured again, and count.
        progress: who is told.

    Raises:
        InputError: the store refuses to write, a task or baseline of the gate or a later
            configuration cannot be used.
        KeyboardInterrupt: as `run_sweep` does.
    """
    check_gates(ablation.recipes(), store)
    outcome = Outcome()
    known = store if resume else None
    planned = [ablation.launches(index, known) for index in range(rounds)]
    progress.planned([launch for each in planned for _, launch in each])
    with sigterm_interrupts():
        while outcome.rounds < max_rounds:
            index = outcome.rounds
            if index >= rounds:
                planned.append(ablation.launches(index, known))
                progress.planned([launch for _, launch in planned[index]])
            for on, launch in planned[index]:
                _measure(on, launch, store, progress, outcome)
                if launch.skipped:
                    outcome.points[on] += [
                        point
                        for point in ablation.stored(on, store)
                        if point.repeat == index and point.concurrency in launch.skipped
                    ]
            outcome.rounds += 1
            if outcome.rounds < rounds:
                continue
            outcome.attributions = split(outcome.points, outcome.rounds)
            # Where no round so far gives shares, further ones would hardly.
            if all(not each.shares or each.precise(precision) for each in outcome.attributions):
                break
    return outcome


def _measure(
    on: Configuration,
    launch: Launch,
    store: Store,
    progress: Progress,
    outcome: Outcome,
) -> None:
    if not launch.concurrencies:
        return
    result = SweepResult()
    LaunchRun(launch, store, progress, result).measure()
    outcome.failures += result.failures
    outcome.gates += result.gates
    # A configuration of which nothing was measured stays absent.
    for each in result.points:
        outcome.points[on].append(each.seen)
