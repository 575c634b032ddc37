"""Changes of the engine's source for the length of a block: how a known bug is put back in.

A module is read from its file, changed, and run as another module in its place; everything of the
engine that holds it, or a function, class or kernel of it, holds the changed one within the block.
What is built inside has the bug, on the CPU, under Triton's interpreter and on a GPU alike. Nothing
of this is in the package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest.mock import patch

ROOM = "upcurve.engine."


@dataclass(frozen=True)
class Edit:
    """One change of a module's source."""

    module: str
    """Below `upcurve.engine`."""
    old: str
    """Lines, or a part of one; there once, or the plan no longer fits the source."""
    new: str

    def apply(self, source: str) -> str:
        """Return the changed source."""
        count = source.count(self.old)
        if count != 1:
            raise LookupError(f"{self.module} has {count} times: {self.old!r}")
        return source.replace(self.old, self.new)


@contextmanager
def planted(edits: Sequence[Edit]) -> Iterator[None]:
    """Run the engine with changed source within the block."""
    with TemporaryDirectory() as folder, ExitStack() as undo:
        undo.callback(_forget_all_but, set(sys.modules))
        for name in dict.fromkeys(each.module for each in edits):
            _plant(name, [each for each in edits if each.module == name], Path(folder), undo)
        yield


def _forget_all_but(known: set[str]) -> None:
    """Let modules be imported anew that were first imported within the block: they hold the bug."""
    for name in set(sys.modules) - known:
        if name.startswith(ROOM):
            package, _, own = name.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(own, None)
            del sys.modules[name]


def _plant(module: str, edits: Sequence[Edit], folder: Path, undo: ExitStack) -> None:
    name = ROOM + module
    before = importlib.import_module(name)
    assert before.__file__ is not None
    source = Path(before.__file__).read_text(encoding="utf-8")
    for edit in edits:
        source = edit.apply(source)
    # A file, because Triton reads the source of a kernel.
    file = folder / f"{module}.py"
    file.write_text(source, encoding="utf-8")
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    after = module_from_spec(spec)
    sys.modules[name] = after
    undo.callback(sys.modules.__setitem__, name, before)
    spec.loader.exec_module(after)
    _hand_over(before, after, undo)


def _hand_over(before: ModuleType, after: ModuleType, undo: ExitStack) -> None:
    """Let every module of the engine hold what is of `after` where it held what is of `before`."""
    pairs = {id(before): after}
    for key, value in vars(before).items():
        if _is_of(value, before.__name__):
            pairs[id(value)] = getattr(after, key)
    for name, holder in list(sys.modules.items()):
        if name.startswith(ROOM) and holder is not after:
            for key, value in list(vars(holder).items()):
                if id(value) in pairs:
                    undo.enter_context(patch.object(holder, key, pairs[id(value)]))


def _is_of(value: Any, name: str) -> bool:
    """Return whether a function, class or kernel is defined in a module."""
    function = getattr(value, "fn", value)
    return getattr(function, "__module__", None) == name and callable(value)
