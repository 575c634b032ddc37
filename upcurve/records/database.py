"""The database under a store: SQLite or PostgreSQL, opened, brought up to date, errors in words."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from upcurve.errors import InputError
from upcurve.records.schema import SCHEMA

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 60
"""How long a writer waits for another one before it gives up."""


def sqlite_engine(path: Path) -> sa.Engine:
    """Return an engine for a SQLite file in WAL mode: one writer at a time, readers never wait."""
    engine = _engine(sa.URL.create("sqlite", database=str(path)), timeout=BUSY_SECONDS)

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        # Python's driver opens transactions late and breaks transactional DDL: BEGIN is ours.
        connection.isolation_level = None
        _write_ahead(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A reader that turns writer may not wait for the lock in SQLite; a declared writer may.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def read_only_sqlite_engine(path: Path, name: str) -> sa.Engine:
    """Return an engine for a SQLite file in a folder that cannot be written.

    Raises:
        InputError: its write-ahead log is not merged, so that the file alone lacks rows.
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise InputError(
            "store", f"{name} is read-only and was not closed", "open it once where it is writable"
        )
    # Without "immutable" SQLite would have to create its shared-memory file beside it.
    query = {"uri": "true", "mode": "ro", "immutable": "1"}
    return _engine(sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query))


def postgresql_engine(location: str) -> sa.Engine:
    """Return an engine for a postgresql:// URL, through psycopg 3.

    Raises:
        InputError: the URL cannot be read, or psycopg is not installed.
    """
    try:
        url = sa.make_url(location).set(drivername="postgresql+psycopg")
        return _engine(url, connect_timeout=10)
    except (ArgumentError, ValueError):
        # The URL itself may hold a password: it is not repeated.
        raise InputError(
            "store", "the PostgreSQL URL cannot be read", "write postgresql://user@host/database"
        ) from None
    except ModuleNotFoundError as error:
        raise InputError(
            "store", f"{error.name} is not installed", "run pip install 'upcurve[postgres]'"
        ) from None


def _engine(url: sa.URL, **arguments: Any) -> sa.Engine:
    return sa.create_engine(
        url,
        connect_args=arguments,
        json_serializer=lambda value: orjson.dumps(
            value, option=orjson.OPT_SERIALIZE_NUMPY
        ).decode(),
        json_deserializer=orjson.loads,
    )


def _json_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, which stays switched on in the file."""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself for this lock.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def bring_up_to_date(engine: sa.Engine, name: str, *, read_only: bool = False) -> None:
    """Create the tables, or upgrade an older store, in one transaction.

    Raises:
        InputError: the store was written by a newer upcurve, or is to be upgraded and cannot be
            written; it is not touched.
    """
    with engine.connect() as connection:
        version = _version(connection, name)
    if version == SCHEMA:
        return
    if read_only:
        raise InputError(
            "store",
            f"{name} is read-only and of an older upcurve (schema {version:04})",
            "open it once where it is writable",
        )
    # Costs 0.2 s: imported only where there is something to migrate.
    from alembic import command
    from alembic.config import Config

    with engine.execution_options(writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7570637572766501)")
        if _version(connection, name) == SCHEMA:  # another process was faster
            return
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, f"{SCHEMA:04}")


def _version(connection: sa.Connection, name: str) -> int:
    """Return the schema number of the store; 0 where there is none yet."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return 0
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    number = int(version) if version and str(version).isdigit() else SCHEMA + 1
    if number > SCHEMA:
        raise InputError(
            "store",
            f"{name} was written by a newer upcurve (schema {version}, this one knows {SCHEMA:04})",
            "upgrade upcurve, or name another store",
        )
    return number


@contextmanager
def errors_in_words(name: str) -> Iterator[None]:
    """Turn what the disk or the database refuses into one line that says what to do.

    Raises:
        InputError: in place of OSError and of the database's own errors.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            "store", f"{name}: {error.strerror or error}", _mend(str(error.strerror))
        ) from error
    except sa.exc.IntegrityError:
        raise
    except DBAPIError as error:
        text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "failed"
        raise InputError("store", f"{name}: {text}", _mend(text)) from error


_MENDS = {
    "no space": "free some space on the disk",
    "is full": "free some space on the disk",
    "file too large": "free some space on the disk, or raise the file size limit",
    "disk i/o": "free some space on the disk, and check that it works",
    "readonly": "make it writable, or name another store",
    "read-only": "make it writable, or name another store",
    "permission": "make it writable, or name another store",
    "exists": "name a folder",
    "not a directory": "name a folder",
    "no such file": "name a folder that can be made",
    "unable to open": "make the folder writable, or name another store",
    "not a database": "name a folder that upcurve made",
    "malformed": "restore it from a copy",
    "locked": "try again when the other writers are done",
    "connection": "check the host, the port and that the server runs",
}


def _mend(text: str) -> str:
    lowered = text.lower()
    matches = (mend for sign, mend in _MENDS.items() if sign in lowered)
    return next(matches, "check the store, or name another one")
