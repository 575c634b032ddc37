"""Where a store is: a folder, or a database with a folder for its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from upcurve.errors import InputError
from upcurve.records import database


@dataclass(frozen=True, slots=True)
class Place:
    """A store that is there, or may be made there."""

    name: str
    """Folder or URL, its password hidden."""
    engine: sa.Engine
    root: Path
    """The folder of traces and logs."""
    read_only: bool = False
    """Whether the folder cannot be written; its tables are up to date then."""


def place_of(location: str | Path, *, create: bool) -> Place:
    """Return the place that a location names.

    Args:
        location: a folder, or a postgresql:// URL; then the environment variable UPCURVE_TRACES
            names the folder of traces and logs.
        create: whether a missing folder is made. Without, one that cannot be written is opened for
            reading only.

    Raises:
        InputError: it is no kind of store, is missing, unreadable, or of a newer upcurve.
    """
    text = str(location)
    if not text:
        raise InputError("store", "its name is empty", "name a folder or a postgresql:// URL")
    if text.startswith(("postgresql:", "postgres:", "postgresql+")):
        return _in_postgresql(text)
    if "://" in text:
        kind = text.split("://", 1)[0]
        raise InputError(
            "store", f"{kind}:// is no kind of store", "name a folder or a postgresql:// URL"
        )
    root, file = Path(location), Path(location) / "store.sqlite"
    with database.errors_in_words(text):
        if not create and not file.is_file():
            raise InputError(
                "store", f"there is none in {text}", "run upcurve import or upcurve sweep first"
            )
        if not create and not os.access(root, os.W_OK):
            engine = database.read_only_sqlite_engine(file, text)
            database.bring_up_to_date(engine, text, read_only=True)
            return Place(text, engine, root, read_only=True)
        root.mkdir(parents=True, exist_ok=True)
    return Place(text, database.sqlite_engine(file), root)


def _in_postgresql(url: str) -> Place:
    traces = os.environ.get("UPCURVE_TRACES")
    if not traces:
        raise InputError(
            "UPCURVE_TRACES",
            "a PostgreSQL store keeps its traces in a folder, and none is named",
            "set UPCURVE_TRACES to a folder that every writer reaches",
        )
    engine = database.postgresql_engine(url)
    return Place(engine.url.render_as_string(hide_password=True), engine, Path(traces))
