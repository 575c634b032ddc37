"""An attribution for machines: a JSON object, tidy rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.frontier.attribution import Attribution, Estimate
from upcurve.frontier.flags import Flag
from upcurve.frontier.point import Point
from upcurve.frontier.rounds import doubts
from upcurve.frontier.shapley import Configuration, Design
from upcurve.frontier.waterfall import bar_name


def to_dict(attribution: Attribution) -> dict[str, Any]:
    """Return the JSON object of one target."""
    usd = attribution.usd or (None, None)
    return {
        "interactivity": attribution.interactivity,
        "rounds": list(attribution.rounds),
        "baseline": {"tput_per_gpu": _exp(attribution.baseline), "usd_per_million_tokens": usd[0]},
        "full": {"tput_per_gpu": _exp(attribution.full), "usd_per_million_tokens": usd[1]},
        "move": {"log_ratio": _json(attribution.move), "usd": _json(attribution.usd_move)},
        "shares": [
            {
                "switch": bar.switch or None,
                "log_ratio": _json(bar.log),
                "usd": _json(bar.usd),
                "alone": _json(bar.added_alone),
                "last": _json(bar.taken_away),
            }
            for bar in attribution.bars
        ],
        "lost": [
            {"round": each.round, "on": sorted(each.configuration), "reason": each.reason}
            for each in attribution.lost
        ],
        "end_readings": attribution.ends,
        "readings": attribution.readings,
    }


Doubts = Mapping[str, Sequence[Flag]]
"""What is doubtful at one target, by configuration: all that reach it, by name."""


def doubtful(
    points: Mapping[Configuration, Sequence[Point]],
    attributions: Sequence[Attribution],
    labels: Mapping[Configuration, str],
    rule: str,
) -> list[Doubts]:
    """Return what is doubtful about the points that each move rests on.

    Args:
        points: of every configuration.
        attributions: the move at each target.
        labels: names of configurations.
        rule: how to interpolate on a frontier.
    """
    return [
        {labels[on]: of for on, of in doubts(points, each.interactivity, rule).items()}
        for each in attributions
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """An ablation as it is told to machines: the moves, and what they were made of."""

    attributions: Sequence[Attribution]
    switches: Sequence[str]
    design: Design
    seed: int
    rounds: int
    """Rounds that were measured."""
    precision: float
    """Wanted half width of every share, in log ratio."""
    configurations: Sequence[tuple[str, Configuration, str]]
    """Series, switches that are on, and fingerprint of each."""
    flags: Sequence[Doubts]
    """What is doubtful at each target."""
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `upcurve ablate --json` prints."""
        return {
            "switches": list(self.switches),
            "design": self.design,
            "seed": self.seed,
            "rounds": self.rounds,
            "precision": self.precision,
            "configurations": [
                {
                    "series": series,
                    "on": [switch for switch in self.switches if switch in on],
                    "fingerprint": fingerprint,
                }
                for series, on, fingerprint in self.configurations
            ],
            "targets": [
                to_dict(each)
                | {
                    "precise": each.precise(self.precision),
                    "more_rounds": each.more_rounds(self.precision),
                    "flags": [
                        {"configuration": name} | flag.to_dict()
                        for name, own in of.items()
                        for flag in own
                    ],
                }
                for each, of in zip(self.attributions, self.flags, strict=True)
            ],
            "notes": list(self.notes),
        }


def tidy_rows(attributions: Sequence[Attribution], flags: Sequence[Doubts]) -> list[dict[str, Any]]:
    """Return one flat row for each target and bar, the same keys in all; None where empty.

    Args:
        attributions: the move at each target.
        flags: what is doubtful at each.
    """
    rows = []
    for each, of in zip(attributions, flags, strict=True):
        words = "; ".join(
            f"{flag.code}: {name}: {flag.text}" for name, own in of.items() for flag in own
        )
        for bar in each.bars:
            row: dict[str, Any] = {
                "interactivity": each.interactivity,
                "switch": bar_name(bar),
                "design": each.design,
                "rounds": len(each.rounds),
            }
            columns = {
                "log_ratio": bar.log,
                "usd": bar.usd,
                "alone": bar.added_alone,
                "last": bar.taken_away,
                "move_log_ratio": each.move,
                "move_usd": each.usd_move,
            }
            for name, value in columns.items():
                interval = (value and value.interval) or (None, None)
                row |= {
                    name: value and value.mean,
                    f"{name}_low": interval[0],
                    f"{name}_high": interval[1],
                }
            rows.append(row | {"flags": words})
    return rows


def _exp(estimate: Estimate | None) -> float | None:
    return None if estimate is None else math.exp(estimate.mean)


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "mean": estimate.mean,
        "interval": list(estimate.interval) if estimate.interval else None,
        "rounds": estimate.rounds,
    }
