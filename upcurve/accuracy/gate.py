"""The gate: what a score has to be for a point to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from upcurve.accuracy.evaluation import Evaluation
from upcurve.accuracy.proportions import difference, needed, paired_difference, power
from upcurve.accuracy.scoring import Metric
from upcurve.errors import InputError

CONFIDENCE = 0.95
"""Of the one-sided test of non-inferiority."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a score passes, and why."""

    passed: bool
    why: str
    facts: dict[str, Any] = field(default_factory=dict)
    """What the record keeps of it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the baseline answered to the same items."""

    series: str
    right: Mapping[str, bool] | None
    """Item -> whether its answer was right; None where the answers are not kept."""
    count: int
    """Right answers."""
    n: int
    concurrency: int


class Gate(Protocol):
    """What a score has to be."""

    def judge(self, found: Evaluation, metric: Metric, reference: Reference | None) -> Verdict:
        """Return whether it passes; `reference` is the baseline's, where the gate has one."""

    @property
    def baseline(self) -> str | None:
        """The series that it is held against."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """The score itself is at least a threshold."""

    minimum: float

    def __post_init__(self) -> None:
        """Check the threshold.

        Raises:
            InputError: it is no share.
        """
        if not 0 < self.minimum <= 1:
            raise InputError("minimum", f"{self.minimum:g} is no share", "give 0.9 for 90 %")

    @property
    def baseline(self) -> str | None:
        """None: it is held against no series."""
        return None

    def judge(
        self,
        found: Evaluation,
        metric: Metric,
        reference: Reference | None,  # noqa: ARG002 - it has none
    ) -> Verdict:
        """Pass a score that is at least the minimum."""
        score = found.score(metric)
        passed = score >= self.minimum
        words = "at least" if passed else "below"
        why = f"{score:.4f} is {words} the minimum {self.minimum:g}"
        return Verdict(passed, why, {"minimum": self.minimum})


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """The score is not lower than a baseline's by more than a margin, shown with confidence.

    The one-sided test is the lower end of an interval of the difference: Tango's where both
    answered the same items, else Newcombe's.
    """

    series: str
    margin: float
    power: float = 0.8
    """Wanted of the test where both are equally good; a failure below it says so."""

    def __post_init__(self) -> None:
        """Check margin and power.

        Raises:
            InputError: one of them is no share.
        """
        for name, value in (("margin", self.margin), ("power", self.power)):
            if not 0 < value < 1:
                raise InputError(name, f"{value:g} is no share", "give e.g. 0.02")

    @property
    def baseline(self) -> str | None:
        """The series that it is held against."""
        return self.series

    def planned_power(self, n: int, reference: Reference) -> float:
        """Return the power of n items where nothing is known but the baseline's score.

        Outcomes are taken as independent of the baseline's; on the same items they are not, and
        the test has more.
        """
        share = reference.count / reference.n
        return power(n, self.margin, 2 * share * (1 - share), CONFIDENCE)

    def judge(self, found: Evaluation, metric: Metric, reference: Reference | None) -> Verdict:
        """Pass a score that is shown to be at most the margin below the baseline's."""
        asked = {"baseline": self.series, "margin": self.margin, "confidence": CONFIDENCE}
        if reference is None:
            why = f"the store has no answers of {self.series!r} to the same items"
            return Verdict(False, why, asked)
        right = found.count(metric)
        if reference.right is not None and reference.right.keys() == found.right[metric].keys():
            own, other = found.right[metric], reference.right
            gained = sum(own[each] and not other[each] for each in own)
            lost = sum(other[each] and not own[each] for each in own)
            low, high = paired_difference(gained, lost, found.n, 2 * CONFIDENCE - 1)
            discordance, gap = (gained + lost) / found.n, (gained - lost) / found.n
            kind: dict[str, Any] = {"paired": True, "gained": gained, "lost": lost}
        else:
            counts, sizes = (right, reference.count), (found.n, reference.n)
            low, high = difference(counts, sizes, 2 * CONFIDENCE - 1)
            first, second = right / found.n, reference.count / reference.n
            # Scaled so that n items of each would have the variance that these have.
            other_share = second * (1 - second) * found.n / reference.n
            discordance, gap = first * (1 - first) + other_share, first - second
            kind = {"paired": False}
        reached = power(found.n, self.margin, discordance, CONFIDENCE)
        facts = {
            **asked,
            **kind,
            "baseline_score": reference.count / reference.n,
            "baseline_concurrency": reference.concurrency,
            "difference": gap,
            "difference_interval": [low, high],
            "discordance": discordance,
            "power": reached,
            "power_if_independent": self.planned_power(found.n, reference),
        }
        passed = low > -self.margin
        why = (
            f"{gap:+.4f} against {self.series}, surely no less than {low:+.4f}: "
            f"{'within' if passed else 'not within'} the margin of {self.margin:g}"
        )
        if not passed and reached < self.power and gap > -self.margin:
            enough = needed(self.margin, discordance, self.power, CONFIDENCE)
            facts["needed"] = enough
            why += (
                f"; {found.n:,} items would tell with a power of {reached:.2f} only, "
                f"{enough:,} with one of {self.power:g}"
            )
        return Verdict(passed, why, facts)
