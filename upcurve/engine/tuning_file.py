"""The file of launch parameters of one chip: what it holds, reading, writing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import msgspec

from upcurve.engine.errors import EngineInputError
from upcurve.engine.tuning import BUCKETED, VARIABLE, Key, Shape, bucket, key


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
    """Rows and capacity as powers of two: it holds for more than half as many, up to so many."""
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
            for name in BUCKETED:
                size = entry.shape.get(name, 1)
                if not isinstance(size, int) or size != bucket(size):
                    problem = f"{where}: {name} {size} is not a power of two"
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


def _order(where: Key) -> tuple[str, list[tuple[str, str, int]]]:
    """Sort numbers as numbers, rows last."""
    operation, shape = where
    parts = sorted(shape, key=lambda each: (each[0] == "rows", each[0]))
    return operation, [
        (name, "", value) if isinstance(value, int) else (name, value, 0) for name, value in parts
    ]
