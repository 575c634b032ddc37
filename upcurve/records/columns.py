"""Columns of a row of measurements: their names, types and what an unusable cell is told."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    Json,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

MOST = 2**31 - 1
"""The largest integer that a column of the store holds."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One unusable cell, row or file, with its mend."""

    place: int | None
    """Line of the file (of a JSON list: which item, from 1); None for the file as a whole."""
    column: str | None
    problem: str
    mend: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an import: how a cell of it is read."""

    name: str
    cells: TypeAdapter[Any]
    """Reads a list of filled cells."""
    required: bool = False
    empty: Any = None
    """What an empty cell stands for, where it may be empty."""

    def read(
        self, cells: Sequence[Any], places: Sequence[int], optional: Container[int] = ()
    ) -> tuple[list[Any], list[Problem]]:
        """Return the values of the cells; where a cell is unusable, None and a problem.

        Args:
            cells: text from a CSV file, or JSON values.
            places: line or item of each cell.
            optional: indices of cells that may be empty even in a required column.
        """
        problems: list[Problem] = []
        values = [self.empty] * len(cells)
        filled = [index for index, cell in enumerate(cells) if not _is_empty(cell)]
        if self.required:
            problems += [
                Problem(
                    places[index], self.name, "the cell is empty", "fill it or leave out the row"
                )
                for index, cell in enumerate(cells)
                if _is_empty(cell) and index not in optional
            ]
        given = [cells[index] for index in filled]
        bad: dict[int, Problem] = {}
        try:
            read = self.cells.validate_python(given)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=True):
                index = int(each["loc"][0])
                problem, mend = _in_words(each["type"], given[index], dict(each), self.name)
                bad.setdefault(index, Problem(places[filled[index]], self.name, problem, mend))
            read = [None if index in bad else cell for index, cell in enumerate(given)]
        for index, value in zip(filled, read, strict=True):
            values[index] = value
        return values, problems + list(bad.values())


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _no_truth(cell: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(cell, bool):
        raise ValueError("is not a number|write e.g. 8")
    return cell


def _moment(cell: Any) -> datetime:
    """Read a day or a moment; without a time zone it is UTC."""
    try:
        moment = datetime.fromisoformat(cell.strip())
    except (AttributeError, ValueError, TypeError):
        raise ValueError("is no date|write YYYY-MM-DD, or a time as 2026-05-19T08:30:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _object(cell: Any) -> Any:
    return JSON_OBJECT.validate_python(cell) if isinstance(cell, str) else cell


def _objects(cell: Any) -> Any:
    return JSON_OBJECTS.validate_python(cell) if isinstance(cell, str) else cell


JSON_OBJECT: TypeAdapter[Any] = TypeAdapter(Json[dict[str, Any]])
JSON_OBJECTS: TypeAdapter[Any] = TypeAdapter(Json[list[dict[str, Any]]])

TEXT: TypeAdapter[Any] = TypeAdapter(
    list[
        Annotated[
            str,
            StringConstraints(
                strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$", max_length=2000
            ),
        ]
    ]
)
COUNT: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[int, BeforeValidator(_no_truth), Field(ge=1, le=MOST)]]
)
COUNT_OR_ZERO: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[int, BeforeValidator(_no_truth), Field(ge=0, le=MOST)]]
)
RATE: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[float, BeforeValidator(_no_truth), Field(gt=0, allow_inf_nan=False)]]
)
RATE_OR_ZERO: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[float, BeforeValidator(_no_truth), Field(ge=0, allow_inf_nan=False)]]
)
MOMENT: TypeAdapter[Any] = TypeAdapter(list[Annotated[datetime, BeforeValidator(_moment)]])
OBJECT: TypeAdapter[Any] = TypeAdapter(list[Annotated[dict[str, Any], BeforeValidator(_object)]])
OBJECTS: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[list[dict[str, Any]], BeforeValidator(_objects)]]
)
SOURCE: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[str, Field(pattern=r"^(sweep|bench|import)$")]]
)
RUN_ID: TypeAdapter[Any] = TypeAdapter(
    list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]]
)

COLUMNS = (
    Column("series", TEXT, required=True),
    Column("measured_on", MOMENT, required=True),
    Column("hardware", TEXT, required=True, empty=""),
    Column("engine", TEXT, empty=""),
    Column("engine_version", TEXT, empty=""),
    Column("image", TEXT, empty=""),
    Column("model", TEXT, required=True),
    Column("precision", TEXT, empty=""),
    Column("isl", COUNT, required=True),
    Column("osl", COUNT, required=True),
    Column("tp", COUNT, required=True),
    Column("ep", COUNT, empty=1),
    Column("dp", COUNT, empty=1),
    Column("gpus", COUNT, required=True),
    Column("prefill_gpus", COUNT),
    Column("decode_gpus", COUNT),
    Column("concurrency", COUNT, required=True),
    Column("repeat", COUNT_OR_ZERO),
    Column("tput_per_gpu", RATE, required=True),
    Column("interactivity", RATE, required=True),
    Column("input_tput_per_gpu", RATE_OR_ZERO),
    Column("output_tput_per_gpu", RATE_OR_ZERO),
    Column("tpot_ms", RATE),
    Column("ttft_ms", RATE_OR_ZERO),
    Column("requests", COUNT_OR_ZERO),
    Column("failed", COUNT_OR_ZERO),
    Column("run", RUN_ID),
    Column("source", SOURCE, empty="import"),
    Column("fingerprint", TEXT),
    Column("started_at", MOMENT),
    Column("engine_commit", TEXT, empty=""),
    Column("change", TEXT),
    Column("harness_version", TEXT, empty=""),
    Column("recipe", OBJECT, empty={}),
    Column("host", OBJECT, empty={}),
    Column("devices", OBJECTS, empty=[]),
    Column("software", OBJECT, empty={}),
    Column("accuracy", OBJECT),
    Column("result", OBJECT, empty={}),
)
"""Every column that the record has a place for, in the order of the export."""

REQUIRED = tuple(column.name for column in COLUMNS if column.required)


def _in_words(kind: str, cell: Any, error: dict[str, Any], column: str) -> tuple[str, str]:
    """Return problem and mend for one cell that pydantic refused."""
    shown = repr(cell) if len(repr(cell)) <= 40 else repr(cell)[:37] + "..."
    if kind == "value_error":
        problem, _, mend = str(error["ctx"]["error"]).partition("|")
        return f"{shown} {problem}", mend
    if kind == "greater_than" and str(cell).strip().lower().lstrip("+-") == "nan":
        kind = "finite_number"  # no number is above or below nan
    limits = error.get("ctx", {})
    words: dict[str, Callable[[], tuple[str, str]]] = {
        "finite_number": lambda: ("is not a finite number", "leave the row out, or measure again"),
        "greater_than": lambda: (f"is not above {limits['gt']:g}", "leave out what failed"),
        "greater_than_equal": lambda: (f"is below {limits['ge']:g}", "correct the cell"),
        "less_than_equal": lambda: (f"is above {limits['le']}", "correct the cell"),
        "string_type": lambda: ("is not text", "put it in quotes"),
        "string_too_long": lambda: ("is too long", "shorten it to 2000 characters"),
        "string_pattern_mismatch": lambda: ("has the wrong form", _FORMS.get(column, _NO_CONTROL)),
    }
    if kind in words:
        problem, mend = words[kind]()
    elif kind.startswith(("int_", "float_")):
        whole = "whole " if kind.startswith("int_") else ""
        problem = f"is not a {whole}number"
        mend = f"write e.g. {'8' if whole else '1288.5'}"
        if isinstance(cell, str) and "," in cell:
            mend += ", with a point as the decimal mark and no other marks"
    else:
        problem, mend = "is no JSON of the right form", "write it as upcurve export does"
    return f"{shown} {problem}", mend


_NO_CONTROL = "write one line without control characters"
_FORMS = {
    "source": "write sweep, bench or import",
    "run": "use letters, digits, '.', '_' and '-', at most 80",
}
