"""What the disk, the kernel and other processes do to a store."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow
import pytest

from tests.records.examples import point_record, run_record
from upcurve.errors import InputError
from upcurve.records.store import Store

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["upcurve.records.store", "tests.records.examples"])


def trace_of(concurrency: int) -> pyarrow.Table:
    return pyarrow.table({"request": range(concurrency * 50), "sent_s": [0.5] * concurrency * 50})


def add_forever(folder: str, done) -> None:
    with Store.open(folder) as store:
        run_id = store.begin_run(run_record())
        concurrency = 0
        while True:
            concurrency += 1
            store.add_point(run_id, point_record(concurrency=concurrency), trace_of(concurrency))
            done.send((run_id, concurrency))


def test_kill_9_leaves_whole_points_only(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: dict[str, int] = {}
    for _ in range(12):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        child = PROCESSES.Process(target=add_forever, args=(str(tmp_path), sender))
        child.start()
        sender.close()
        for _ in range(chance.randint(1, 4)):
            run_id, count = receiver.recv()
        chance_wait = chance.uniform(0, 0.02)  # anywhere inside the next points
        child.join(chance_wait)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        while receiver.poll():
            try:
                run_id, count = receiver.recv()
            except EOFError:
                break
        acknowledged[run_id] = count
    with Store.open(tmp_path) as store:
        assert store.series()[0].runs == 12
        for run_id, count in acknowledged.items():
            _, points = store.find_run(run_id)
            found = [point.concurrency for point in points]
            # What was reported is there; at most the one in the making is there beside it.
            assert found in (list(range(1, count + 1)), list(range(1, count + 2)))
            assert len(list((tmp_path / "traces" / run_id).iterdir())) == len(points)
        with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection:
            ids = connection.execute("SELECT id, concurrency FROM points").fetchall()
            statuses = set(connection.execute("SELECT DISTINCT status, process FROM runs"))
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert statuses == {("interrupted", None)}
        for point_id, concurrency in ids:
            assert store.trace(point_id).equals(trace_of(concurrency))


def test_files_of_a_killed_writer_are_cleaned_and_those_of_others_stay(tmp_path: Path) -> None:
    receiver, sender = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=add_forever, args=(str(tmp_path), sender))
    child.start()
    dead_run, _ = receiver.recv()
    child.kill()
    child.join()
    folder = tmp_path / "traces" / dead_run
    (folder / ".tp2.parquet.ab12.tmp").write_bytes(b"half a fi")
    (folder / "tp2-orphan.parquet").write_bytes(b"PAR1")
    with Store.open(tmp_path) as store:
        live_run = store.begin_run(run_record(series="live"))
        store.add_point(live_run, point_record(), trace_of(1))
        (tmp_path / "traces" / live_run / ".x.tmp").write_bytes(b"being written")
        with Store.open(tmp_path) as again:
            assert len(again.points("may")) == len(list(folder.iterdir()))
        assert {file.suffix for file in folder.iterdir()} == {".parquet"}
        assert not (folder / "tp2-orphan.parquet").exists()
        assert (tmp_path / "traces" / live_run / ".x.tmp").exists()


def add_many(folder: str, series: str, barrier) -> None:
    with Store.open(folder) as store:
        run_id = store.begin_run(run_record(series=series))
        barrier.wait()
        for concurrency in range(1, 31):
            store.add_point(run_id, point_record(concurrency=concurrency), trace_of(1))
        store.end_run(run_id, "complete")


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    barrier = PROCESSES.Barrier(2)
    names = ["left", "right"]
    writers = [
        PROCESSES.Process(target=add_many, args=(str(tmp_path), name, barrier)) for name in names
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    with Store.open(tmp_path) as store:
        assert [(each.name, each.points) for each in store.series()] == [
            ("left", 30),
            ("right", 30),
        ]


def fill_up(folder: str, limit: int | None, answers) -> None:
    """Add points until the disk refuses; report the refusal and what was accepted before."""
    with Store.open(folder) as store:
        run_id = store.begin_run(run_record())
        store.add_point(run_id, point_record(concurrency=1), trace_of(1))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        accepted = 1
        try:
            while accepted < 5000:
                bulk = {"text": os.urandom(20_000).hex()}
                store.add_point(
                    run_id, point_record(concurrency=accepted + 1, result=bulk), trace_of(1)
                )
                accepted += 1
        except InputError as error:
            answers.put((str(error), accepted))
        else:
            answers.put(("never refused", accepted))


def check_full(folder: Path, limit: int | None) -> None:
    answers = PROCESSES.Queue()
    child = PROCESSES.Process(target=fill_up, args=(str(folder), limit, answers))
    child.start()
    message, accepted = answers.get(timeout=60)
    child.join()
    assert message.startswith(f"store: {folder}")
    assert "free some space on the disk" in message
    assert "\n" not in message
    traces = [file for file in (folder / "traces").rglob("*") if file.is_file()]
    assert len(traces) == accepted  # nothing half-written stays
    with closing(sqlite3.connect(folder / "store.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM points").fetchone() == (accepted,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_may_not_grow_is_one_clear_line(tmp_path: Path) -> None:
    check_full(tmp_path / "results", limit=400_000)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    # In a mount namespace of its own: the small disk is gone with its process.
    small = f"mount -t tmpfs -o size=2m tmpfs '{tmp_path}'"
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, small], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    check = (
        "from pathlib import Path; from tests.records.test_crash import check_full;"
        f"check_full(Path('{tmp_path}') / 'results', None)"
    )
    subprocess.run(
        [*unshare, f'{small} && exec "{sys.executable}" -c "{check}"'],
        check=True,
        cwd=Path(__file__).parents[2],
    )


def open_as_nobody(folder: str, create: bool, answers) -> None:
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        with Store.open(folder, create=create) as store:
            count = len(store.points("may"))
            with pytest.raises(InputError, match="readonly database; make it writable"):
                store.begin_run(run_record())
            answers.put(f"opened with {count}, writing refused")
    except InputError as error:
        answers.put(str(error))


@pytest.fixture
def locked(tmp_path: Path):
    """A store in a folder that nobody may write."""
    folder = tmp_path / "results"
    with Store.open(folder) as store:
        store.add_point(store.begin_run(run_record()), point_record())
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # pytest keeps its folders to their owner.
    outer = [path for path in (tmp_path, *tmp_path.parents) if not path.stat().st_mode & 0o001]
    modes = [path.stat().st_mode for path in outer]
    for path in outer:
        path.chmod(0o755)
    yield folder
    for path, mode in zip(outer, modes, strict=True):
        path.chmod(mode)
    folder.chmod(0o755)


def as_nobody(folder: Path, create: bool) -> str:
    answers = PROCESSES.Queue()
    child = PROCESSES.Process(target=open_as_nobody, args=(str(folder), create, answers))
    child.start()
    answer = answers.get(timeout=60)
    child.join()
    return answer


def test_a_read_only_folder_is_one_clear_line(locked: Path) -> None:
    answer = as_nobody(locked, create=True)
    assert answer.startswith(f"store: {locked}: ")
    assert answer.endswith("make it writable, or name another store")
    assert "writable" in as_nobody(locked / "new", create=True)


def test_a_read_only_folder_can_be_read(locked: Path) -> None:
    assert as_nobody(locked, create=False) == "opened with 1, writing refused"


def test_a_read_only_folder_whose_log_is_not_merged(locked: Path) -> None:
    log = locked / "store.sqlite-wal"
    log.write_bytes(b"rows that are not in the file yet")
    answer = as_nobody(locked, create=False)
    log.unlink()
    assert answer.endswith("is read-only and was not closed; open it once where it is writable")
