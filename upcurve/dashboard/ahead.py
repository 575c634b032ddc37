"""What a page shows first of a large store, made before anyone asks, and while nobody does."""

from __future__ import annotations

from contextlib import suppress

from upcurve.dashboard.answers.chart import frontier
from upcurve.dashboard.answers.overview import overview
from upcurve.dashboard.contract.questions import FrontierQuestion, OverviewQuestion
from upcurve.dashboard.reader import Reader
from upcurve.errors import InputError

GROUPS = 50
SERIES = 8
"""That the page shows of a group where nobody chose."""
LINE_QUIET_S, ROW_QUIET_S = 0.1, 1.0
"""Since the last answer: a line is drawn in between two questions of a page, a row is not."""


def work_ahead(reader: Reader) -> None:
    """Draw the newest lines of each group, then the first rows of the overview, one at a time.

    Lines first: all of them together take less time than a few rows do.
    """
    with suppress(InputError):
        for group in list(reader.catalogue().groups.values())[:GROUPS]:
            for name in group.series[:SERIES]:
                reader.wait_until_quiet(LINE_QUIET_S)
                frontier(reader, FrontierQuestion(series=[name], isl=group.isl, osl=group.osl))
        for place in range(OverviewQuestion().limit):
            reader.wait_until_quiet(ROW_QUIET_S)
            overview(reader, OverviewQuestion(limit=1, offset=place))
