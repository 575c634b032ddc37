"""Files of a store: traces and logs, written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from upcurve.errors import InputError

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""What may name a run: it becomes a file name."""


def trace_folder(root: Path, run_id: str) -> Path:
    """Return `traces/RUN` below the store's folder."""
    return root / "traces" / _checked(run_id)


def log_file(root: Path, run_id: str) -> Path:
    """Return `logs/RUN.log` below the store's folder, whose parent exists."""
    path = root / "logs" / f"{_checked(run_id)}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _checked(run_id: str) -> str:
    if not RUN_ID.fullmatch(run_id):
        raise InputError(
            "run", f"{run_id!r} cannot name a file", "use letters, digits, '.', '_' and '-'"
        )
    return run_id


def write_trace(folder: Path, stem: str, trace: pyarrow.Table) -> Path:
    """Write a table as `FOLDER/STEM-RANDOM.parquet` and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{secrets.token_hex(4)}.parquet"
    _write_table(path, trace)
    return path


def write_telemetry(trace: Path, tables: Mapping[str, pyarrow.Table]) -> None:
    """Write what was sampled along a point beside its trace: `STEM-RANDOM.NAME.parquet`."""
    for name, table in tables.items():
        _write_table(trace.with_suffix(f".{name}.parquet"), table)


def read_telemetry(trace: Path) -> dict[str, pyarrow.Table]:
    """Return what `write_telemetry` wrote beside a trace, by name."""
    found = trace.parent.glob(f"{trace.stem}.*.parquet")
    return {each.name.split(".")[-2]: pyarrow.parquet.read_table(each) for each in sorted(found)}


def remove_trace(trace: Path) -> None:
    """Remove a trace and what was written beside it."""
    for each in (trace, *trace.parent.glob(f"{trace.stem}.*.parquet")):
        each.unlink(missing_ok=True)


def _write_table(path: Path, table: pyarrow.Table) -> None:
    write_whole(path, lambda file: pyarrow.parquet.write_table(table, file, compression="zstd"))


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """Write a file under a temporary name beside it, force it to the disk, then rename it.

    Whatever happens, `path` either stays as it was or holds all that `write` wrote.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _force_names(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _force_names(folder: Path) -> None:
    """Force a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_orphans(folder: Path, known: set[str]) -> None:
    """Remove what a killed writer left in a run's trace folder: every file that no point names."""
    if folder.is_dir():
        for file in folder.iterdir():
            if file.name not in known and f"{file.name.split('.')[0]}.parquet" not in known:
                file.unlink(missing_ok=True)
