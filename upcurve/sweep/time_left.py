"""How long a sweep still takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from upcurve.sweep.plan import Launch


class TimeLeft:
    """How many points are done, and how long the rest takes at the pace so far."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self._started = time.monotonic()

    def start(self, launches: Sequence[Launch]) -> None:
        """Count the points of launches in; until one is done, time begins anew."""
        self.total += sum(len(launch.concurrencies) + launch.at_most for launch in launches)
        if not self.finished:
            self._started = time.monotonic()

    def done(self, points: int) -> None:
        """Count points as done."""
        self.finished += points

    def __str__(self) -> str:
        share = f"{self.finished} of {self.total}"
        if not 0 < self.finished < self.total:
            return share
        each = (time.monotonic() - self._started) / self.finished
        return f"{share}, about {duration(each * (self.total - self.finished))} left"


def duration(seconds: float) -> str:
    """Return a time in words, as exact as a guess is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
