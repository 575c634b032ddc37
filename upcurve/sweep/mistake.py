"""A mistake in a recipe, in one line: where it is, what is wrong and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from upcurve.errors import InputError


def mistake(error: ValidationError, form: type[BaseModel], path: Path) -> InputError:
    """Return the first error as one line: unknown keys first, for they explain missing ones.

    Args:
        error: what the validation found.
        form: what the file was read as: its keys are those that are known.
        path: of the file.
    """
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    location = [part for part in first["loc"] if part != "[key]"]
    cause = first.get("ctx", {}).get("error")
    if not location and isinstance(cause, InputError):
        # Of the recipe as a whole: the error itself says of what.
        location = [cause.field]
    field = f"recipe {path}: {'.'.join(str(part) for part in location)}"
    problem, mend = _problem_and_mend(first, form, location)
    return InputError(field, problem, mend)


def _problem_and_mend(
    error: Mapping[str, Any], form: type[BaseModel], location: Sequence[Any]
) -> tuple[str, str]:
    kind, given = error["type"], error["input"]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause.problem, cause.mend
    if kind == "extra_forbidden":
        known = list(_section(form, location[:-1]).model_fields)
        return "unknown key", did_you_mean(str(location[-1]), known, "the keys here are")
    if kind == "missing":
        return "it is missing", "add it"
    if kind == "string_type" and isinstance(given, int | float):
        return f"{_short(given)} is read as a {type(given).__name__}", "put it in quotes"
    mends = {
        "string_type": "give text",
        "string_too_short": "give at least one character",
        "int_type": "give a whole number",
        "float_type": "give a number",
        "list_type": "give a list, e.g. [1, 2, 4]",
        "too_short": "give at least one item",
        "dict_type": "give keys and values below it",
        "model_type": "give keys and values below it",
        "string_pattern_mismatch": "let it begin with /",
    }
    expected = str(error["msg"])
    problem = f"{_short(given)} cannot be used"
    return problem, mends.get(kind, expected[0].lower() + expected[1:])


def _section(form: type[BaseModel], location: Sequence[Any]) -> type[BaseModel]:
    for part in location:
        inner = form.model_fields[str(part)].annotation
        kinds = [each for each in (inner, *get_args(inner)) if isinstance(each, type)]
        form = next(each for each in kinds if issubclass(each, BaseModel))
    return form


def did_you_mean(name: str, known: Sequence[str], otherwise: str) -> str:
    """Return a mend that names the known name next to a wrong one, or else all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"{otherwise} {', '.join(known)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
