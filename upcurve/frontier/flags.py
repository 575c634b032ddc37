"""What a reader must know before believing a figure: each a code for machines, words for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from upcurve.frontier.bootstrap import MINIMUM_REPEATS
from upcurve.frontier.interpolation import Curve, Reading
from upcurve.frontier.point import Facts, Point

FEW_REQUESTS = 64
"""Requests below which a point's median stands on few."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One thing to know about a reading or a series."""

    code: str
    text: str
    brief: str = ""
    """`text` less its place and what a table shows; empty where it has neither."""

    @property
    def reason(self) -> str:
        """What a note says that names the places itself, under a table that has the figures."""
        return self.brief or self.text

    def to_dict(self) -> dict[str, str]:
        """Return the JSON object of this flag."""
        return {"code": self.code, "text": self.text}


def bracket(curve: Curve, target: float) -> slice:
    """Return which knots a reading rests on: the two around it, or the one that it hits."""
    left = int(np.searchsorted(curve.x, target, side="right")) - 1
    return slice(left, left + (1 if curve.x[left] == target else 2))


def regime_extension(
    baseline: str, curve: Curve, reading: Reading, target: float
) -> Iterator[Flag]:
    """Flag a ratio that is partly, or wholly, of how far the baseline reaches.

    Args:
        baseline: its name.
        curve: the curve of the baseline.
        reading: what it says at the target.
        target: interactivity, in tok/s/user.
    """
    end = curve.x[-1]
    if reading.status == "unreachable":
        gained = f"{baseline} ends at {end:.4g} tok/s/user: what is gained"
        reach = "is reach, no ratio of speeds"
        yield Flag(
            "regime_extension", f"{gained} at {target:g} {reach}", f"{gained} beyond {reach}"
        )
    elif reading.value is not None and (len(curve.x) == 1 or target > curve.x[-2]):
        start = curve.x[max(0, len(curve.x) - 2)]
        words = (
            f"the last interval of {baseline} ({start:.4g} to {end:.4g} tok/s/user), where its "
            "reach ends: the ratio is partly of reach"
        )
        yield Flag("regime_extension", f"{target:g} lies in {words}", words)


def end_segment(rule_ratios: tuple[str, str]) -> Flag:
    """Flag a ratio that rests on a first or last interval; given lowest and highest, as texts."""
    low, high = rule_ratios
    spread = low if low == high else f"{low} to {high}"
    words = f"it rests on a first or last interval: {spread} over the interpolation rules"
    brief = "the ratio rests on a first or last interval: see by rule"
    return Flag("end_segment_sensitivity", words, brief)


def point_flags(measured: Sequence[Sequence[Point]]) -> Iterator[Flag]:
    """Flag what is doubtful about the operating points that a reading rests on.

    Args:
        measured: the repeats of each of them.
    """
    facts = [point.facts or Facts() for group in measured for point in group]
    repeats = min(len(group) for group in measured)
    if repeats < MINIMUM_REPEATS:
        runs = "one run only" if repeats == 1 else "two runs only"
        words = f"{runs} at the points around it: no interval, which takes {MINIMUM_REPEATS}"
        yield Flag("too_few_samples", words)
    requests = [each.requests for each in facts if each.requests is not None]
    if requests and min(requests) < FEW_REQUESTS:
        words = f"runs of {min(requests)} requests at the points around it; a median wants 64"
        brief = f"runs of {min(requests)} requests, where a median wants {FEW_REQUESTS}"
        yield Flag("too_few_samples", words, brief)
    saturated = sum(each.client_saturated is True for each in facts)
    if saturated:
        words = f"the load client was at its own limit in {saturated} of {len(facts)} runs"
        yield Flag("client_saturated", words)
    failed = sum(each.failed or 0 for each in facts)
    if failed:
        words = f"{failed} of {sum(requests)} requests failed at the points around it"
        yield Flag("partial_failures", words, f"{failed} of {sum(requests)} requests failed")
    if any(each.output_length_ok is False for each in facts):
        words = "answers at the points around it had other lengths than were asked for"
        yield Flag("partial_failures", words)
    if any(each.accuracy_passed is False for each in facts):
        yield Flag("accuracy_failed", "the accuracy check failed at the points around it")
    if any(all((p.facts or Facts()).accuracy_passed is None for p in group) for group in measured):
        yield Flag("accuracy_missing", "no accuracy was measured at the points around it")


def reach_uncertain(target: float) -> Flag:
    """Flag a target that the repeats do not surely reach."""
    words = f"no interval: more than 2.5 % of what the repeats allow does not reach {target:g}"
    brief = "no interval: more than 2.5 % of what the repeats allow does not reach the target"
    return Flag("reach_uncertain", words, brief)


def mixed_fingerprints(count: int) -> Flag:
    """Flag what joins runs of several fingerprints."""
    words = (
        f"it joins {count} fingerprints in one curve: settings that can change its speed differ "
        "between its runs"
    )
    return Flag("mixed_fingerprints", words)
