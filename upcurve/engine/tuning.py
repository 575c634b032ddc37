"""Launch parameters that were measured on a chip: one JSON file per chip, looked up at dispatch.

Dispatch says what its rule would launch, and gets what was measured to be faster, if anything was:

    tile = tuning.choose(Tile.of(rows=rows, ...), "dense_product", device, rows=rows, depth=depth)

The files lie in `upcurve/engine/tuned`; `benchmarks/tune.py` writes them. UPCURVE_TUNING names
another file, or "none". A file is read once, and nothing here asks the device while a graph is
captured: its name is known from the first call.
"""

from __future__ import annotations

import inspect
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
Key = tuple[str, tuple[tuple[str, int | str], ...]]
"""Operation, and its shape in order of the names."""


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

    def merged(self, name: str, measurement: Measurement, entries: Iterable[Entry]) -> Tuning:
        """Return this with entries of a new measurement in the place of those at their shapes.

        Measurements that no entry refers to any more are dropped.
        """
        kept = {key(each.operation, each.shape): each for each in (*self.entries, *entries)}
        by_shape = tuple(kept[where] for where in sorted(kept, key=_order))
        named = {each.measurement for each in by_shape}
        known = {**self.measurements, name: measurement}
        return Tuning(self.chip, {each: known[each] for each in known if each in named}, by_shape)

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(text + b"\n")
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)


def choose(
    rule: Parameters, operation: str, device: torch.device, **shape: int | str
) -> Parameters:
    """Return what was measured to be the fastest; what the rule chose where nothing was.

    Args:
        rule: dataclass of the launch parameters, which are whole numbers.
        operation: as files name it.
        device: on which it is launched.
        shape: all that the choice may depend on; of `rows` the next power of two counts.

    Raises:
        EngineInputError: the file is not valid, or its parameters are not those of the rule.
    """
    chip = chip_of(device)
    if chip is None:
        return rule
    if isinstance(rows := shape.get("rows"), int):
        shape["rows"] = bucket(rows)
    where = key(operation, shape)
    for trial in _trials:
        trial.asked[where] = rule
        if where in trial.given:
            given: Parameters = trial.given[where]
            return given
    entry = entries(chip).get(where)
    if entry is None:
        return rule
    try:
        return type(rule)(**entry.parameters)
    except TypeError as error:
        names = ", ".join(inspect.signature(type(rule)).parameters)
        problem = f"{operation} at {shape} has {', '.join(entry.parameters)}"
        raise EngineInputError("tuning", problem, f"its parameters are {names}") from error


@dataclass(slots=True)
class Trial:
    """Who is trying: learns what dispatch asks for, and may answer."""

    asked: dict[Key, Any] = field(default_factory=dict)
    """What was asked for, and what its rule chose."""
    given: dict[Key, Any] = field(default_factory=dict)
    """What is answered."""


@contextmanager
def trial() -> Iterator[Trial]:
    """Listen to what dispatch asks for within the block."""
    begun = Trial()
    _trials.append(begun)
    try:
        yield begun
    finally:
        _trials.remove(begun)


_trials: list[Trial] = []


def bucket(rows: int) -> int:
    """Return the smallest power of two that is not below."""
    return 1 << max(0, rows - 1).bit_length()


def key(operation: str, shape: Shape) -> Key:
    """Return an operation and its shape as what entries are told apart by."""
    return operation, tuple(sorted(shape.items()))


def chip_of(device: torch.device) -> str | None:
    """Return the name of a GPU's file: "nvidia-h200" of "NVIDIA H200"; None for the CPU."""
    return None if device.type != "cuda" else _chip(device.index)


def file_of(chip: str) -> Path:
    """Return the path of the file of a chip, whether it is there or not."""
    return FOLDER / f"{chip}.json"


def _order(where: Key) -> tuple[str, list[tuple[str, str, int]]]:
    """Sort numbers as numbers, rows last."""
    operation, shape = where
    parts = sorted(shape, key=lambda each: (each[0] == "rows", each[0]))
    return operation, [
        (name, "", value) if isinstance(value, int) else (name, value, 0) for name, value in parts
    ]


@cache
def _chip(index: int | None) -> str:
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(index).lower()).strip("-")


@cache
def entries(chip: str) -> dict[Key, Entry]:
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
    """Read files, the environment and the GPU's name anew where they are asked for next."""
    entries.cache_clear()
    _chip.cache_clear()
