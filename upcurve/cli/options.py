"""Options and parameter types that several commands share."""

from __future__ import annotations

import math
from typing import Any

import click

MAX_THREADS = 1024
"""CPU threads of one engine at most: far more of them end OpenMP in a crash."""


class FiniteRange(click.FloatRange):
    """A float range that neither NaN nor infinity is in."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse the number; fail with one line where it is not finite or outside the range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class NumberList(click.ParamType[Any]):
    """A comma-separated list of positive numbers: `--at 20,30,40`."""

    name = "numbers"

    def __init__(self, *, integers: bool = False) -> None:
        self.integers = integers

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float] | list[int]:
        """Parse the list; fail with one line where an item is not a positive number."""
        if isinstance(value, list):
            return value
        numbers: list[Any] = []
        for item in str(value).split(","):
            try:
                number = int(item) if self.integers else float(item)
            except ValueError:
                number = -1
            if not 0 < number < float("inf"):
                kind = "whole number" if self.integers else "number"
                self.fail(
                    f"{item.strip()!r} is not a positive {kind}; give e.g. 4,8,16", param, ctx
                )
            numbers.append(number)
        return numbers


class Name(click.ParamType[str]):
    """A name that a record keeps: one line of text that `upcurve import` takes back."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name without spaces around it; fail where it is empty or more than a line."""
        text = value.strip()
        if not text or len(text) > 2000 or not text.isprintable():
            self.fail(f"{value!r} is no name; give one line of text", param, ctx)
        return text


store_option = click.option(
    "--store",
    envvar="UPCURVE_STORE",
    default="./results",
    show_default=True,
    metavar="FOLDER|URL",
    help="Where records are kept. A postgresql:// URL also needs UPCURVE_TRACES.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on stdout; logs go to stderr."
)
