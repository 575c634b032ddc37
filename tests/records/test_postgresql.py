"""The same store over a real PostgreSQL server, started for the test and thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pyarrow
import pytest
import sqlalchemy as sa

from tests.records.examples import point_record, run_record
from upcurve.errors import InputError
from upcurve.records import export
from upcurve.records.browse import (
    ablation_recipes,
    figures,
    measured,
    run_details,
    run_summaries,
    store_version,
)
from upcurve.records.rows import import_rows
from upcurve.records.store import Store


def _programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, which Debian keeps off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@pytest.fixture(scope="module")
def server():
    """The URL of an empty database; the server listens on a socket in a folder of its own."""
    pytest.importorskip("psycopg")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (initdb is not found)")
    as_user: list[str] = []
    with tempfile.TemporaryDirectory(prefix="upcurve-") as name:
        folder = Path(name)
        if os.geteuid() == 0:  # the server refuses to run as root
            account = pwd.getpwnam("nobody")
            os.chown(folder, account.pw_uid, account.pw_gid)
            ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
            as_user = ["setpriv", *ids]

        def call(program: str, *arguments: str) -> None:
            subprocess.run(
                [*as_user, str(programs / program), *arguments],
                check=True,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"HOME": name, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            )

        data = str(folder / "data")
        call("initdb", "-D", data, "-U", "upcurve", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={name} -c fsync=off"
        call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql://upcurve@/postgres?host={name}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture
def store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UPCURVE_TRACES", str(tmp_path / "traces-of-all"))
    engine = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()
    with Store.open(server) as opened:
        yield opened


def test_a_sweep(store: Store, server: str, tmp_path: Path) -> None:
    run, point = run_record(), point_record(result={"a": [1, None]}, accuracy={"gsm8k": 0.94})
    trace = pyarrow.table({"request": [0, 1]})
    run_id = store.begin_run(run)
    point_id = store.add_point(run_id, point, trace)
    with pytest.raises(InputError, match="this point already"):
        store.add_point(run_id, point)
    with pytest.raises(InputError, match="the store has none named nobody"):
        store.add_point("nobody", point)
    with Store.open(server) as other:
        assert other.find_run(run_id) == (run, [point])
        assert other.trace(point_id).equals(trace)
        assert other.completed(run.fingerprint, "may") == {(2, 1, 1, 2, 0, 4, 8192, 1024, 0)}
    store.set_accuracy(point_id, {"passed": False})
    assert store.facts([point_id])[point_id].accuracy_passed is False
    assert store.latest_points("may") == {4: (point_id, 8192)}
    store.end_run(run_id, "complete")
    assert [(each.name, each.points) for each in store.series()] == [("may", 1)]
    assert (tmp_path / "traces-of-all" / "traces" / run_id).is_dir()


def test_import_and_export_are_those_of_a_folder(store: Store, tmp_path: Path) -> None:
    done = import_rows(store, "published:mi355x-qwen35")
    again = import_rows(store, "published:mi355x-qwen35")
    assert (done.added, again.added) == ({"feb": 5, "apr": 8, "may": 8}, {})
    assert again.already_there == done.added
    with Store.open(tmp_path / "folder") as folder:
        import_rows(folder, "published:mi355x-qwen35")
        export.write_file(folder, tmp_path / "folder.csv", "csv")
        assert folder.points("may") == store.points("may")
    export.write_file(store, tmp_path / "server.csv", "csv")
    assert (tmp_path / "server.csv").read_bytes() == (tmp_path / "folder.csv").read_bytes()


def test_a_newer_store_is_left_alone(store: Store, server: str) -> None:
    engine = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM measurements").scalar() == 0
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    engine.dispose()
    with pytest.raises(InputError, match="written by a newer upcurve"):
        Store.open(server)


def test_a_reader_of_the_whole_store(store: Store, server: str) -> None:
    seen = [store_version(store)]
    import_rows(store, "published:mi355x-qwen35")
    seen.append(store_version(store))
    asked = {"switches": ["a"], "on": [], "design": "full", "seed": 0, "round": 0}
    run = store.begin_run(run_record(recipe={"name": "x", "ablation": asked}))
    seen.append(store_version(store))
    power = {"totals": {"joules_per_output_token": 2.0, "energy_valid": True}}
    store.add_point(
        run,
        point_record(
            result={"e2e_ms": {"p50": 900.5}, "power": power},
            output_tput_per_gpu=50.0,
            accuracy={"task": "t", "passed": False},
        ),
    )
    seen.append(store_version(store))
    store.end_run(run, "complete")
    seen.append(store_version(store))
    assert len(set(seen)) == len(seen)
    assert store_version(store) == seen[-1]
    found, highest = measured(store)
    assert sum(each.points for each in found) == highest == 22
    assert [(each.checked, each.failed) for each in found if each.run == run] == [(1, 1)]
    assert {each.id for each in run_summaries(store)} == {each.run for each in found}
    (only,) = figures(store, [run], 8192, 1024, detailed=True)
    assert (only.e2e_ms, only.watts_per_gpu) == (900.5, 100.0)
    assert [key for key, _ in ablation_recipes(store)] == [run]
    details = run_details(store, run)
    assert details
    assert details.recipe["ablation"] == asked
