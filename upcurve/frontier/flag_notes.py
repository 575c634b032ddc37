"""Flags as notes for readers: one line a kind, each reason with the points that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from upcurve.frontier.flags import Flag

MOST_LISTED = 3
"""Points up to which a series that is flagged at all of them still has them listed."""
FEW_LEFT = 0.2
"""Share of all points up to which those are named that a flag is not about."""

Flagged = tuple[str, float | None, Sequence[Flag]]
"""A series, a target in tok/s/user or None for the series as a whole, and its flags, if any."""
Points = Mapping[str, Sequence[str]]
"""Series -> targets as texts."""


def flag_notes(found: Iterable[Flagged]) -> list[str]:
    """Return a line for each kind of flag, with each of its reasons and all that it is about.

    `all points` are all that are given with a target, `all series` all without.

    Args:
        found: every series and every point that can be flagged, those without flags too.
    """
    series: list[str] = []
    points: dict[str, list[str]] = {}
    kinds: dict[str, dict[str, _About]] = {}
    for name, target, flags in found:
        if target is None:
            series.append(name)
        else:
            _add(points, name, f"{target:g}")
        for flag in flags:
            about = kinds.setdefault(flag.code, {}).setdefault(flag.reason, _About())
            if target is None:
                about.series.append(name)
            else:
                _add(about.points, name, f"{target:g}")
    return [
        f"{code.replace('_', ' ')}: "
        + "; ".join(f"{reason} ({about.within(series, points)})" for reason, about in of.items())
        + "."
        for code, of in kinds.items()
    ]


class _About:
    """What one reason holds for."""

    def __init__(self) -> None:
        self.series: list[str] = []
        self.points: dict[str, list[str]] = {}

    def within(self, series: Sequence[str], points: Points) -> str:
        """Return it in words, shortest where it is all, or nearly all, of what there is."""
        words = []
        if self.series:
            every = len(self.series) == len(series) > 1
            words.append("all series" if every else _joined(self.series))
        left = {
            name: [each for each in of if each not in self.points.get(name, ())]
            for name, of in points.items()
        }
        missing = sum(map(len, left.values()))
        if self.points and not missing:
            words.append("all points")
        elif self.points and missing <= FEW_LEFT * sum(map(len, points.values())):
            words.append(f"all points but {_listed(left, points, 'those of')}")
        elif self.points:
            words.append(_listed(self.points, points, "all points of"))
        return "; ".join(words)


def _add(points: dict[str, list[str]], name: str, target: str) -> None:
    """Add a point; a target may be asked for twice."""
    of = points.setdefault(name, [])
    if target not in of:
        of.append(target)


def _listed(chosen: Points, points: Points, whole: str) -> str:
    """Return points by series; series of the same targets stand together."""
    alike: dict[str, list[str]] = {}
    for name, of in chosen.items():
        if of:
            every = len(of) == len(points[name]) > MOST_LISTED
            alike.setdefault("" if every else ", ".join(of), []).append(name)
    return "; ".join(
        f"{_joined(names)} at {of}" if of else f"{whole} {_joined(names)}"
        for of, names in alike.items()
    )


def _joined(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
