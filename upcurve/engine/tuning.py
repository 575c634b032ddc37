"""Launch parameters that were measured on a chip: one JSON file per chip, looked up at dispatch.

A dispatch rule asks here first and decides for itself where nothing was measured:

    tile = tuning.lookup(Tile, "grouped_product", device, rows=rows, groups=groups) or Tile.of(...)

The files lie in `upcurve/engine/tuned`; `benchmarks/tune.py` writes them. UPCURVE_TUNING names
another file, or "none". A file is read once, and nothing here asks the device while a graph is
captured: its name is known from the first call.
"""

from __future__ import annotations

import inspect
import os
import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from upcurve.engine.errors import EngineInputError

FOLDER = Path(__file__).parent / "tuned"
VARIABLE = "UPCURVE_TUNING"
Parameters = TypeVar("Parameters")
Shape = dict[str, int | str]


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who measured, when, on what: entries refer to it by name."""

    by: str
    date: date
    hardware: str
    """As the driver names it, and how many."""
    versions: dict[str, str]
    command: str
    """From the repository root."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was the fastest for one operation at one shape."""

    operation: str
    shape: Shape
    """Rows as a power of two: it holds for more than half as many, up to so many."""
    parameters: dict[str, int]
    microseconds: float
    """Of one call."""
    rule_microseconds: float
    """Of one call with what the dispatch rule chooses, in the same process."""
    measurement: str


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of one chip."""

    chip: str
    measurements: dict[str, Measurement] = {}
    entries: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Tuning:
        """Read a file.

        Raises:
            EngineInputError: it is not there, or not valid.
        """
        mend = f"mend the file, write it with benchmarks/tune.py, or set {VARIABLE}=none"
        try:
            tuning = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise EngineInputError("tuning", f"{path}: {error.strerror}", mend) from error
        except msgspec.DecodeError as error:
            raise EngineInputError("tuning", f"{path}: {error}", mend) from error
        seen = set()
        for position, entry in enumerate(tuning.entries):
            where = f"{path}: $.entries[{position}]"
            if entry.measurement not in tuning.measurements:
                problem = f"{where}: no measurement is called {entry.measurement!r}"
                raise EngineInputError("tuning", problem, mend)
            rows = entry.shape.get("rows", 1)
            if not isinstance(rows, int) or rows != bucket(rows):
                problem = f"{where}: {rows} rows are not a power of two"
                raise EngineInputError("tuning", problem, mend)
            if key(entry.operation, entry.shape) in seen:
                raise EngineInputError("tuning", f"{where}: this shape is there twice", mend)
            seen.add(key(entry.operation, entry.shape))
        return tuning


def lookup(
    kind: type[Parameters], operation: str, device: torch.device, **shape: int | str
) -> Parameters | None:
    """Return what was measured to be the fastest; None where nothing was.

    Args:
        kind: dataclass of the launch parameters.
        operation: as files name it.
        device: on which it is launched.
        shape: all that the choice may depend on; of `rows` the next power of two counts.

    Raises:
        EngineInputError: the file is not valid, or its parameters are not those of `kind`.
    """
    chip = chip_of(device)
    if chip is None:
        return None
    if isinstance(rows := shape.get("rows"), int):
        shape["rows"] = bucket(rows)
    entry = entries(chip).get(key(operation, shape))
    if entry is None:
        return None
    try:
        return kind(**entry.parameters)
    except TypeError as error:
        names = ", ".join(inspect.signature(kind).parameters)
        problem = f"{operation} at {shape} has {', '.join(entry.parameters)}"
        raise EngineInputError("tuning", problem, f"its parameters are {names}") from error


def bucket(rows: int) -> int:
    """Return the smallest power of two that is not below."""
    return 1 << max(0, rows - 1).bit_length()


def key(operation: str, shape: Shape) -> tuple[str, tuple[tuple[str, int | str], ...]]:
    """Return an operation and its shape as what entries are told apart by."""
    return operation, tuple(sorted(shape.items()))


def chip_of(device: torch.device) -> str | None:
    """Return the name of a GPU's file: "nvidia-h200" of "NVIDIA H200"; None for the CPU."""
    return None if device.type != "cuda" else _chip(device.index)


def file_of(chip: str) -> Path:
    """Return the path of the file of a chip, whether it is there or not."""
    return FOLDER / f"{chip}.json"


@cache
def _chip(index: int | None) -> str:
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(index).lower()).strip("-")


@cache
def entries(chip: str) -> dict[Any, Entry]:
    """Return what was measured on a chip, by `key`.

    Raises:
        EngineInputError: the file is not valid.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "none":
        return {}
    path = Path(chosen) if chosen else file_of(chip)
    if not chosen and not path.exists():
        return {}
    return {key(each.operation, each.shape): each for each in Tuning.read(path).entries}


def forget() -> None:
    """Read files and the environment anew at the next lookup."""
    entries.cache_clear()
