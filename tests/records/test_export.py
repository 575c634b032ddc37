from __future__ import annotations

import csv
import io
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records.examples import point_record, run_record
from upcurve.errors import InputError
from upcurve.records import export
from upcurve.records.columns import COLUMNS
from upcurve.records.queries import EXPORTED
from upcurve.records.rows import import_rows
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

# Text as a store may hold it; an import takes outer blanks for padding, so there are none.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
MOMENT = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
COUNT = st.integers(1, 2**31 - 1)
RATE = st.floats(1e-300, 1e300)
RUN = st.builds(
    RunRecord,
    series=TEXT,
    source=st.sampled_from(["sweep", "bench", "import"]),
    fingerprint=TEXT,
    model=TEXT,
    hardware=TEXT,
    started_at=MOMENT,
    recipe=OBJECT,
    engine=TEXT | st.just(""),
    image=TEXT | st.just(""),
    host=OBJECT,
    gpus=st.lists(OBJECT, max_size=2),
    software=OBJECT,
    change=st.none() | TEXT,
)
POINT = st.builds(
    lambda gpus, tp, **rest: PointRecord(gpus=gpus, tp=min(gpus, tp), **rest),
    gpus=COUNT,
    tp=COUNT,
    isl=COUNT,
    osl=COUNT,
    concurrency=COUNT,
    measured_at=MOMENT,
    tput_per_gpu=RATE,
    interactivity=RATE,
    repeat=st.integers(0, 2**31 - 1),
    tpot_ms=st.none() | RATE,
    ttft_ms=st.none() | st.floats(0, 1e300),
    requests=st.none() | COUNT,
    failed=st.none() | st.integers(0, 10),
    result=OBJECT,
    accuracy=st.none() | st.dictionaries(TEXT, JSON, min_size=1, max_size=2),
)


def where(point: PointRecord) -> tuple[int, ...]:
    return (point.isl, point.osl, point.tp, point.gpus, point.concurrency, point.repeat)


@given(
    runs=st.lists(
        st.tuples(RUN, st.lists(POINT, min_size=1, max_size=3, unique_by=where)), max_size=3
    ),
    form=st.sampled_from(["csv", "json"]),
)
@settings(max_examples=40)
def test_what_was_exported_is_imported_to_the_letter(
    runs: list[tuple[RunRecord, list[PointRecord]]], form: export.Form
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Store.open(folder / "one") as one, Store.open(folder / "two") as two:
            one.add_finished_runs(((f"run-{n}", *each) for n, each in enumerate(runs)), "test")
            count = export.write_file(one, folder / f"one.{form}", form)
            assert count == sum(len(points) for _, points in runs)
            if not runs:
                with pytest.raises(InputError, match=r"a header and no row|the list is empty"):
                    import_rows(two, str(folder / f"one.{form}"))
                return
            import_rows(two, str(folder / f"one.{form}"))
            for number, (run, points) in enumerate(runs):
                assert two.find_run(f"run-{number}") == (run, points)
            export.write_file(two, folder / f"two.{form}", form)
            assert (folder / f"two.{form}").read_bytes() == (folder / f"one.{form}").read_bytes()
            again = import_rows(one, str(folder / f"one.{form}"))
            assert again.added == {}


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_bench_that_was_told_no_hardware_comes_back(tmp_path: Path, form: export.Form) -> None:
    run, points = run_record(source="bench", hardware=""), [point_record()]
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        one.add_finished_runs([("run-0", run, points)], "test")
        export.write_file(one, tmp_path / f"rows.{form}", form)
        import_rows(two, str(tmp_path / f"rows.{form}"))
        assert two.find_run("run-0") == (run, points)


def test_every_exported_column_is_one_that_an_import_knows() -> None:
    assert [column.name for column in EXPORTED] == [column.name for column in COLUMNS]


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "results") as opened:
        run_id = opened.begin_run(run_record())
        opened.add_points(run_id, [point_record(), point_record(concurrency=8)])
        other = opened.begin_run(run_record(series="apr"))
        opened.add_point(other, point_record(measured_at=datetime(2026, 4, 16, tzinfo=UTC)))
        yield opened


def test_csv_is_read_by_other_programs(store: Store) -> None:
    file = io.BytesIO()
    assert export.write(store, file, "csv", ["may"]) == 2
    first, second = csv.DictReader(io.StringIO(file.getvalue().decode()))
    assert (first["series"], first["tput_per_gpu"], first["failed"]) == ("may", "1267.5", "")
    assert json.loads(second["devices"]) == [{"name": "MI355X", "memory_mib": 294912}]
    assert second["measured_on"] == "2026-05-19T12:30:15.000250+00:00"


def test_json_is_a_list_of_rows(store: Store) -> None:
    file = io.BytesIO()
    assert export.write(store, file, "json") == 3
    rows = json.loads(file.getvalue())
    assert {row["measured_on"] for row in rows if row["series"] == "apr"} == {"2026-04-16"}
    assert list(rows[0]) == list(export.NAMES)


def test_an_export_that_fails_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(InputError, match="series 'june': not in the store"):
        export.write_file(store, path, "csv", ["june"])
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["rows.csv"]


def test_files_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"output: .* is a folder; name a file"):
        export.write_file(store, tmp_path, "csv")
    with pytest.raises(InputError, match=r"output: .*No such file.*; name a file in a folder"):
        export.write_file(store, tmp_path / "none" / "rows.csv", "csv")
