"""Rows that other machines report over HTTP, brought into the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from upcurve.dashboard.contract.runs import Reported
from upcurve.errors import InputError
from upcurve.records import sheet
from upcurve.records.rows import RowsError, add_rows, checked_rows
from upcurve.records.store import Store

MOST_BYTES = 64 * 2**20
PLACE = "body"


class UnreadableError(InputError):
    """A body that cannot be read as rows."""


def report(store: Store, body: bytes) -> Reported:
    """Add the rows of a body: all of them or none; what is there already is left as it is.

    Args:
        store: where they go.
        body: JSON: a list of rows, one row, or `{"run": {...}, "points": [{...}, ...]}`.

    Raises:
        UnreadableError: it is no JSON of one of these forms, or a row cannot be used.
        OtherRowsError: the store has a run of that id with other rows.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place = f"{PLACE}, line {error.lineno}, character {error.colno}"
        mend = "send what upcurve export prints as JSON"
        raise UnreadableError(place, f"is no JSON ({error.msg})", mend) from None
    try:
        read = sheet.of_objects(PLACE, list(enumerate(_rows(value), start=1)), "item")
        rows = checked_rows(read, "a report", PLACE, {})
    except RowsError as error:
        raise _in_words(error) from error
    except InputError as error:
        raise UnreadableError(error.field, error.problem, error.mend) from error
    done = add_rows(store, rows)
    return Reported(
        added=done.added,
        already_there=done.already_there,
        unknown_columns=done.unknown_columns,
        warnings=done.warnings,
    )


def _in_words(error: RowsError) -> UnreadableError:
    """Return the first problem of some; what helps at a command line is left out."""
    first = error.problems[0]
    mend = "add it to every row" if first.place is None else first.mend
    others = len(error.problems) - 1
    more = f" ({others} more like it)" if others else ""
    return UnreadableError(error.field, first.problem + more, mend)


def _rows(value: Any) -> list[Any]:
    """Return the rows of a body; a run with points stands for one row a point."""
    if isinstance(value, Mapping) and ("points" in value or "run" in value):
        run, points = value.get("run"), value.get("points")
        if not isinstance(run, Mapping) or not isinstance(points, list) or len(value) > 2:
            mend = 'write {"run": {...}, "points": [{...}, ...]}'
            raise UnreadableError(PLACE, "is no run with points", mend)
        own = dict(run)
        if "id" in own:
            own["run"] = own.pop("id")
        return [{**own, **each} if isinstance(each, Mapping) else each for each in points]
    return value if isinstance(value, list) else [value]
