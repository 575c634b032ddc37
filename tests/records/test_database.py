from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.records.examples import point_record, run_record
from upcurve.errors import InputError
from upcurve.records import database, schema
from upcurve.records.store import Store

NOW = "2026-05-19 12:00:00.000000"


def store_of_schema(folder: Path, revision: str) -> Path:
    """Make a store as an older upcurve left it."""
    folder.mkdir()
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    engine = database.sqlite_engine(folder / "store.sqlite")
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    return folder


def test_migrations_build_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [f"{schema.SCHEMA:04}"]
    Store.open(tmp_path).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'store.sqlite'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_an_older_store_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    folder = store_of_schema(tmp_path / "old", "0001")
    with sqlite3.connect(folder / "store.sqlite") as connection:
        assert not connection.execute("SELECT * FROM sqlite_master WHERE type = 'view'").fetchall()
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        values = {
            "id": "r1",
            "started_at": "2026-05-19 12:00:00.000000",
            "recipe": "{}",
            "host": "{}",
            "devices": "[]",
            "software": "{}",
            "status": "complete",
        }
        nullable = {"change", "note", "process", "ended_at"}
        cells = [None if name in nullable else values.get(name, "x") for name in columns]
        connection.execute(f"INSERT INTO runs VALUES ({','.join('?' * len(cells))})", cells)
    with Store.open(folder) as store:
        assert store.series()[0].name == "x"
        store.add_point("r1", point_record())
    with sqlite3.connect(folder / "store.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM measurements").fetchone() == (1,)


def test_points_of_an_older_store_are_kept_as_of_one_replica(tmp_path: Path) -> None:
    folder = store_of_schema(tmp_path / "old", "0002")
    with sqlite3.connect(folder / "store.sqlite") as connection:
        for table, values in (
            ("runs", {"id": "r1", "started_at": NOW, "recipe": "{}", "host": "{}", "series": "s"}),
            ("points", {"run_id": "r1", "measured_at": NOW, "tp": 4, "gpus": 4, "result": "{}"}),
        ):
            info = connection.execute(f"PRAGMA table_info({table})").fetchall()
            needed = {name: 1 for _, name, _, required, _, key in info if required and not key}
            cells = needed | values
            if table == "runs":
                cells |= {"devices": "[]", "software": "{}", "status": "complete"}
            names, marks = ",".join(cells), ",".join("?" * len(cells))
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [*cells.values()])
    connection.close()
    with Store.open(folder) as store:
        assert [(point.tp, point.gpus) for point in store.points("s")] == [(4, 4)]
    with sqlite3.connect(folder / "store.sqlite") as connection:
        row = connection.execute("SELECT tp, ep, dp, prefill_gpus, run_id FROM measurements")
        assert row.fetchone() == (4, 1, 1, None, "r1")


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.begin_run(run_record())
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    connection.close()
    before = (tmp_path / "store.sqlite").read_bytes()
    with pytest.raises(InputError, match=r"newer upcurve \(schema 0099, this one knows .*upgrade"):
        Store.open(tmp_path)
    assert (tmp_path / "store.sqlite").read_bytes() == before


def test_an_older_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    folder = store_of_schema(tmp_path / "old", "0001")
    engine = database.read_only_sqlite_engine(folder / "store.sqlite", "old")
    with pytest.raises(InputError, match=r"read-only and of an older upcurve \(schema 0001\)"):
        database.bring_up_to_date(engine, "old", read_only=True)
    engine.dispose()


def test_a_failed_upgrade_changes_nothing(tmp_path: Path) -> None:
    folder = store_of_schema(tmp_path / "old", "0001")
    with sqlite3.connect(folder / "store.sqlite") as connection:
        connection.execute("CREATE TABLE measurements (mine TEXT)")  # in the way of the view
    with pytest.raises(InputError, match="measurements"):
        Store.open(folder)
    with sqlite3.connect(folder / "store.sqlite") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def _open(folder: str, barrier, failures) -> None:
    barrier.wait()
    try:
        with Store.open(folder) as store:
            store.end_run(store.begin_run(run_record()), "complete")
    except BaseException as error:
        failures.put(repr(error))
        raise


def test_processes_may_create_a_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(3), context.Queue()
    arguments = (str(tmp_path / "new"), barrier, failures)
    workers = [context.Process(target=_open, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0], failures.get()
    with Store.open(tmp_path / "new") as store:
        assert store.series()[0].runs == 3


def test_readers_and_a_writer_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with Store.open(tmp_path) as reader, Store.open(tmp_path) as writer:
        run_id = writer.begin_run(run_record())
        writer.add_points(run_id, [point_record(concurrency=c) for c in range(1, 6001)])
        rows = reader.rows()
        next(rows)
        writer.add_point(run_id, point_record(repeat=1))
        assert sum(1 for _ in rows) == 5999  # the reader sees one moment of the store
        assert len(reader.points("may")) == 6001


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://user:hidden@:no/port", "cannot be read"),
        ("postgresql://user:hidden@127.0.0.1:1/db", "127.0.0.1.*; check the host"),
    ],
)
def test_unusable_servers(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPCURVE_TRACES", str(tmp_path))
    with pytest.raises(InputError, match=message) as raised:
        Store.open(url)
    assert "hidden" not in str(raised.value)
    assert "\n" not in str(raised.value)
