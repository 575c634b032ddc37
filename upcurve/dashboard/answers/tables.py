"""Comparison and history, as the command line says them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from upcurve.dashboard.contract.curves import Compare, Comparison, Histories, History, SeriesDetail
from upcurve.dashboard.contract.questions import CompareQuestion, HistoryQuestion, numbers
from upcurve.dashboard.reader import Reader
from upcurve.errors import InputError
from upcurve.frontier.build_values import METRICS
from upcurve.frontier.grid import legend, markdown
from upcurve.frontier.latex import latex
from upcurve.frontier.repeats import frontier_of_repeats
from upcurve.records.compared import Compared, Question, compare_stored
from upcurve.records.history import PUBLISHED, By, histories
from upcurve.records.history import History as StoredHistory
from upcurve.records.trends import Following, Reads, follow, to_dict

MOST_COMPARED = 30
MOST_HISTORIES = 20
PLACES = tuple(digit * 10.0**power for power in range(4) for digit in (1, 2, 4, 6, 8))
"""Interactivities in tok/s/user of which one is chosen where none is asked for."""
USUAL_PLACE = 40.0


def compared(reader: Reader, question: CompareQuestion) -> Compared:
    """Compare what `compare` asks for.

    Raises:
        InputError: as the command line does, or more series than a table can show.
    """
    catalogue = reader.catalogue()
    names: Sequence[str] = question.series
    isl, osl = question.isl, question.osl
    if question.group is not None:
        facts = catalogue.group(question.group)
        isl, osl = facts.isl, facts.osl
        names = names or facts.series[::-1]
    if not names:
        raise InputError("series", "none is chosen", "give series or group")
    for name in names:
        catalogue.one(name)
    if len(names) > MOST_COMPARED:
        problem = f"{len(names)} are too many for one comparison"
        raise InputError("series", problem, f"choose at most {MOST_COMPARED}")
    if question.at and question.every:
        raise InputError("at", "at and every exclude each other", "give one of them")
    asked = Question(
        series=names,
        baseline=question.baseline,
        targets=numbers(question.at),
        every=question.every,
        rule=question.rule,
        isl=isl,
        osl=osl,
        output_weight=question.output_weight,
        pricing=question.pricing(),
    )
    return compare_stored(reader.store, asked, known=catalogue.summaries)


def compare(reader: Reader, question: CompareQuestion) -> Compare:
    """Answer `compare`."""
    found = compared(reader, question)
    words = found.details()
    return Compare(
        comparison=Comparison.model_validate(found.to_dict()),
        details=[
            SeriesDetail(
                name=name,
                describe=words[name],
                price=price.describe() if price else None,
                usd_per_gpu_hour=price.usd_per_gpu_hour if price else None,
            )
            for name, price in found.prices.items()
        ],
        warnings=found.warnings,
        notes=[*found.notes, *found.price_lines()],
    )


def compare_text(reader: Reader, question: CompareQuestion) -> str:
    """Answer `compare` as the command line prints CSV, Markdown or LaTeX."""
    found = compared(reader, question)
    if question.format == "csv":
        text = io.StringIO(newline="")
        rows = found.tidy_rows()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    notes = [*legend(found.comparison, found.details()), *found.notes]
    lay_out = latex if question.format == "latex" else markdown
    return lay_out(found.comparison, notes)


def history(reader: Reader, question: HistoryQuestion) -> History:
    """Answer `history`; without a place, at the interactivity that the most builds reach."""
    found = chosen_histories(reader, question)
    targets = numbers(question.at)
    if targets is None and question.concurrency is None and METRICS[question.metric].along_curve:
        targets = [reached_by_most(found[:MOST_HISTORIES])]
    what = Following(
        metric=question.metric,
        targets=targets,
        concurrency=question.concurrency,
        price=question.price,
        tier=question.tier,
        min_change=question.min_change,
    )
    return followed(found[:MOST_HISTORIES], what, question.by, found[MOST_HISTORIES:])


def reached_by_most(found: Sequence[StoredHistory]) -> float:
    """Return the round interactivity on the most builds' curves; of several the nearest to 40."""
    counts = dict.fromkeys(PLACES, 0)
    for build in (build for each in found for build in each.builds):
        knots = frontier_of_repeats([each.point for each in build.measurements])
        for place in PLACES:
            counts[place] += knots[0].interactivity <= place <= knots[-1].interactivity
    return max(PLACES, key=lambda place: (counts[place], -abs(math.log(place / USUAL_PLACE))))


def chosen_histories(reader: Reader, question: HistoryQuestion) -> list[StoredHistory]:
    """Return the histories that a question is about.

    Raises:
        InputError: it chooses nothing.
    """
    catalogue = reader.catalogue()
    patterns, isl, osl = list(question.pattern), question.isl, question.osl
    if any(each.startswith(PUBLISHED) for each in patterns):
        raise InputError("pattern", "published sets are not in the store", "import them first")
    model = None
    if question.group is not None:
        facts = catalogue.group(question.group)
        isl, osl, model = facts.isl, facts.osl, facts.model
        patterns = patterns or [_literal(name) for name in facts.series]
    if not patterns:
        raise InputError("pattern", "nothing is chosen", "give pattern or group")
    found = histories(
        reader.store, patterns, by=question.by, joined=question.join, isl=isl, osl=osl
    )
    return [each for each in found if model in (None, each.model)]


def followed(
    found: Sequence[StoredHistory],
    what: Following,
    by: By,
    left_off: Sequence[StoredHistory] = (),
    reads: Reads | None = None,
) -> History:
    """Return histories with a metric followed over them."""
    results, notes = follow(found, what, reads)
    return History(
        history=Histories.model_validate(to_dict(results, what, by)),
        left_off=len(left_off),
        notes=notes,
    )


def _literal(name: str) -> str:
    """Return a pattern that fits a name alone."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)
