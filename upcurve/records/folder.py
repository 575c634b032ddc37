"""Files of a store: traces and logs, written whole or not at all."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from upcurve.errors import InputError
from upcurve.files import write_whole
from upcurve.frontier.request_noise import request_noise

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


def log_tail(root: Path, run_id: str, size: int) -> tuple[str, int, int] | None:
    """Return the end of a run's log, its bytes, and those of the whole; None where there is none.

    It begins with a whole line, and what is not UTF-8 is replaced.
    """
    path = root / "logs" / f"{_checked(run_id)}.log"
    try:
        with path.open("rb") as file:
            whole = file.seek(0, 2)
            file.seek(max(0, whole - size))
            data = file.read(size)
    except FileNotFoundError:
        return None
    if len(data) < whole:
        data = data[data.find(b"\n") + 1 :]
    return data.decode("utf-8", errors="replace"), len(data), whole


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


_REQUEST = ["warm_up", "failure", "sent_ns", "first_content_ns", "last_ns", "output_tokens"]


def read_request_noise(trace: Path) -> tuple[float, float] | None:
    """Return `upcurve.frontier.request_noise.request_noise` of a trace; None where it has none.

    A trace that is gone, or that another client wrote, tells nothing: figures stand without it.
    """
    if not trace.is_file():
        return None
    if not set(_REQUEST) <= set(pyarrow.parquet.read_schema(trace).names):
        return None
    table = pyarrow.parquet.read_table(trace, columns=_REQUEST).to_pylist()
    good = [
        each
        for each in table
        if not each["warm_up"] and each["failure"] is None and (each["output_tokens"] or 0) > 1
    ]
    tpot = [
        (each["last_ns"] - each["first_content_ns"]) / (each["output_tokens"] - 1) for each in good
    ]
    end_to_end = [each["last_ns"] - each["sent_ns"] for each in good]
    return request_noise(np.array(tpot, dtype=np.float64), np.array(end_to_end, dtype=np.float64))


def remove_trace(trace: Path) -> None:
    """Remove a trace and what was written beside it."""
    for each in (trace, *trace.parent.glob(f"{trace.stem}.*.parquet")):
        each.unlink(missing_ok=True)


def _write_table(path: Path, table: pyarrow.Table) -> None:
    write_whole(path, lambda file: pyarrow.parquet.write_table(table, file, compression="zstd"))


def remove_orphans(folder: Path, known: set[str]) -> None:
    """Remove what a killed writer left in a run's trace folder: every file that no point names."""
    if folder.is_dir():
        for file in folder.iterdir():
            if file.name not in known and f"{file.name.split('.')[0]}.parquet" not in known:
                file.unlink(missing_ok=True)
