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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from upcurve.engine.errors import EngineInputError

if TYPE_CHECKING:
    from upcurve.engine.tuning_file import Entry

FOLDER = Path(__file__).parent / "tuned"
VARIABLE = "UPCURVE_TUNING"
BUCKETED = ("rows", "capacity")
"""Sizes of which any number may come: what was measured holds for more than half as many, too."""
Parameters = TypeVar("Parameters")
Shape = dict[str, int | str]
Key = tuple[str, tuple[tuple[str, int | str], ...]]
"""Operation, and its shape in order of the names."""


def choose(
    rule: Parameters, operation: str, device: torch.device, **on: int | torch.dtype
) -> Parameters:
    """Return what was measured to be the fastest; what the rule chose where nothing was.

    Args:
        rule: dataclass of the launch parameters, which are whole numbers.
        operation: as files name it.
        device: on which it is launched.
        on: sizes and types that the choice may depend on; of those in `BUCKETED` the next power of
            two counts.

    Raises:
        EngineInputError: the file is not valid, or its parameters are not those of the rule.
    """
    chip = chip_of(device)
    if chip is None:
        return rule
    shape = {name: _plain(name, value) for name, value in on.items()}
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


def _plain(name: str, value: int | torch.dtype) -> int | str:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return bucket(value) if name in BUCKETED else value


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
    # Only where there is something to read: kernels need no more than torch and Triton.
    from upcurve.engine.tuning_file import Tuning

    return {key(each.operation, each.shape): each for each in Tuning.read(path).entries}


def forget() -> None:
    """Read files, the environment and the GPU's name anew where they are asked for next."""
    entries.cache_clear()
    _chip.cache_clear()
