from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from upcurve.errors import InputError
from upcurve.records import published
from upcurve.records.rows import RowsError, import_rows, read_assignments
from upcurve.records.store import Store

HEADER = (
    "series,measured_on,hardware,engine,model,isl,osl,tp,gpus,concurrency,tput_per_gpu,"
    "interactivity,tpot_ms"
)
ROW = "feb,2026-02-20,MI355X,sglang,Q,8192,1024,8,8,4,171.9,40.86,24.47"


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "results") as opened:
        yield opened


def sheet(tmp_path: Path, text: str | bytes, name: str = "rows.csv") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def row(**changes: object) -> str:
    cells = dict(zip(HEADER.split(","), ROW.split(","), strict=True)) | changes
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells.values())
    return text.getvalue()


def test_published_rows_arrive_as_they_were_published(store: Store) -> None:
    done = import_rows(store, "published:mi355x-qwen35")
    assert done.added == {"feb": 5, "apr": 8, "may": 8}
    assert done.unknown_columns == ["published_cost_per_million"]
    [warning] = done.warnings  # the one published row whose two figures disagree
    assert warning == "line 9: interactivity 38.5 is not 1000 / tpot_ms = 37.72"
    with published.measured_file("mi355x-qwen35").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = sorted(store.rows(), key=lambda each: each["measured_on"])
    assert len(found) == 21
    for one, other in zip(expected, found, strict=True):
        for name in ("series", "hardware", "engine", "engine_version", "image", "model"):
            assert other[name] == one[name]
        for name in ("isl", "osl", "tp", "gpus", "concurrency"):
            assert other[name] == int(one[name])
        for name in ("tput_per_gpu", "interactivity", "tpot_ms"):
            assert other[name] == float(one[name])
        cost = float(one["published_cost_per_million"])
        assert other["result"] == {"published_cost_per_million": cost}
        assert other["measured_on"].date().isoformat() == one["measured_on"]
    assert [len(each.fingerprints) for each in store.series()] == [1, 1, 1]
    assert len({row["fingerprint"] for row in found}) == 3


def test_the_same_content_is_added_once(store: Store, tmp_path: Path) -> None:
    lines = [row(concurrency=c) for c in (4, 8, 16)]
    import_rows(store, sheet(tmp_path, "\n".join([HEADER, *lines])))
    again = import_rows(store, sheet(tmp_path, "\r\n".join([HEADER, *reversed(lines)]), "copy.csv"))
    assert (again.added, again.already_there) == ({}, {"feb": 3})
    assert len(store.points("feb")) == 3
    more = import_rows(
        store, sheet(tmp_path, "\n".join([HEADER, *lines, row(series="x")]), "more.csv")
    )
    assert (more.added, more.already_there) == ({"x": 1}, {"feb": 3})


def test_a_repeated_point_is_the_next_repeat(store: Store, tmp_path: Path) -> None:
    lines = [row(), row(concurrency=8), row(tput_per_gpu=180), row()]
    import_rows(store, sheet(tmp_path, "\n".join([HEADER, *lines])))
    found = {(p.concurrency, p.repeat): p.tput_per_gpu for p in store.points("feb")}
    assert found == {(4, 0): 171.9, (8, 0): 171.9, (4, 1): 180.0, (4, 2): 171.9}


def test_gpus_that_are_parted_otherwise_are_no_repeats(store: Store, tmp_path: Path) -> None:
    header = f"{HEADER},prefill_gpus,decode_gpus"
    lines = [row() + parted for parted in (",,", ",2,6", ",4,4", ",2,6")]
    import_rows(store, sheet(tmp_path, "\n".join([header, *lines])))
    found = [(point.prefill_gpus, point.repeat) for point in store.points("feb")]
    assert sorted(found, key=str) == [(2, 0), (2, 1), (4, 0), (None, 0)]
    assert len(store.fingerprints("feb")) == 1


def test_rows_are_grouped_by_all_but_parallelism_concurrency_and_metrics(
    store: Store, tmp_path: Path
) -> None:
    lines = [
        row(),
        row(tp=4, gpus=4, concurrency=16, tput_per_gpu=9),
        row(measured_on="2026-02-20T10:00:00+02:00", concurrency=32),
        row(measured_on="2026-02-21"),
        row(engine="vllm"),
        row(isl=1024),
    ]
    import_rows(store, sheet(tmp_path, "\n".join([HEADER, *lines])))
    [summary] = store.series()
    assert summary.runs == 4
    assert len(summary.fingerprints) == 3  # the day is no cause of speed; engine and workload are
    first = min(store.rows(), key=lambda each: each["concurrency"])
    assert first["started_at"] == datetime(2026, 2, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + "\n" + ROW + "\n",
        HEADER + "\r\n" + ROW + "\r\n",
        HEADER + "\r" + ROW + "\r",
        "\n\n" + HEADER + "\n\n" + ROW + "\n\n  \n",
        ",".join(f'"{name}"' for name in HEADER.split(",")) + "\n" + ROW.replace("feb", '"feb"'),
        HEADER.replace("series", " series ") + "\n" + ROW.replace("feb", " feb "),
    ],
    ids=["BOM", "CRLF", "CR", "blank lines", "quotes", "spaces"],
)
def test_forms_of_csv(text: str, store: Store, tmp_path: Path) -> None:
    assert import_rows(store, sheet(tmp_path, text)).added == {"feb": 1}
    assert store.points("feb")[0].interactivity == 40.86


def test_names_are_kept_to_the_letter(store: Store, tmp_path: Path) -> None:
    name = '=SUM(A1), "äöü" 你好'
    import_rows(store, sheet(tmp_path, HEADER + "\n" + row(series=name)))
    assert store.series()[0].name == name


WRONG_CELLS = [
    ({"tp": "abc"}, "column 'tp': 'abc' is not a whole number; write e.g. 8"),
    ({"tp": "2.5"}, "column 'tp': '2.5' is not a whole number"),
    ({"tp": "0"}, "column 'tp': '0' is below 1"),
    ({"concurrency": "-4"}, "column 'concurrency': '-4' is below 1"),
    ({"isl": "9" * 30}, "column 'isl': '9999"),
    ({"isl": str(2**31)}, f"column 'isl': '{2**31}' is above {2**31 - 1}"),
    ({"interactivity": ""}, "column 'interactivity': the cell is empty; fill it"),
    ({"series": "  "}, "column 'series': the cell is empty"),
    ({"interactivity": "nan"}, "column 'interactivity': 'nan' is not a finite number"),
    ({"tput_per_gpu": "inf"}, "column 'tput_per_gpu': 'inf' is not a finite number"),
    ({"tput_per_gpu": "1e999"}, "column 'tput_per_gpu': '1e999' is not a finite number"),
    ({"tput_per_gpu": "-3"}, "column 'tput_per_gpu': '-3' is not above 0"),
    ({"tput_per_gpu": "0"}, "column 'tput_per_gpu': '0' is not above 0"),
    ({"tput_per_gpu": "1,5"}, "with a point as the decimal mark"),
    ({"tput_per_gpu": "N/A"}, "column 'tput_per_gpu': 'N/A' is not a number"),
    ({"measured_on": "20/02/2026"}, "'20/02/2026' is no date; write YYYY-MM-DD"),
    ({"measured_on": "2026-02-30"}, "'2026-02-30' is no date"),
    ({"measured_on": "1771545600"}, "'1771545600' is no date"),
    ({"gpus": "4"}, "column 'gpus': 4 is below tp 8; count every GPU"),
    ({"series": "a\tb"}, "has the wrong form; write one line without control characters"),
    ({"series": "a" * 3000}, "is too long"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_CELLS)
def test_wrong_cells_are_named(
    changes: dict[str, str], message: str, store: Store, tmp_path: Path
) -> None:
    path = sheet(tmp_path, "\n".join([HEADER, row(concurrency=2), row(**changes), row()]))
    with pytest.raises(RowsError) as raised:
        import_rows(store, path)
    line = str(raised.value)
    assert line.startswith(f"{path}, line 3, column '")
    assert message in line
    assert "\n" not in line
    assert "\t" not in line
    assert store.series() == []


def test_lines_are_those_of_an_editor(store: Store, tmp_path: Path) -> None:
    tall = ROW.replace("sglang", '"two\nlines"')
    path = sheet(tmp_path, f"\n{HEADER},note\n\n{ROW},\n" + f'{ROW},"a\r\nb\nc"\n' + f"{tall},x\n")
    with pytest.raises(RowsError, match="line 8, column 'engine'"):
        import_rows(store, path)


def test_every_problem_is_listed_and_nothing_is_stored(store: Store, tmp_path: Path) -> None:
    lines = [HEADER, row(), row(tp="x", isl=""), row(osl="y"), ROW + ",surplus", row(tp="z")]
    path = sheet(tmp_path, "\n".join(lines))
    with pytest.raises(RowsError, match=r"\(and 4 more problems; --json lists all\)") as raised:
        import_rows(store, path)
    problems = raised.value.as_dict()["problems"]
    assert [(each["place"], each["column"]) for each in problems] == [
        (3, "isl"),
        (3, "tp"),
        (4, "osl"),
        (5, None),
        (6, "tp"),
    ]
    assert "the row has 14 cells, the header 13" in problems[3]["problem"]
    assert store.series() == []


def test_missing_columns_are_named_with_what_may_be_meant(store: Store, tmp_path: Path) -> None:
    header = HEADER.replace("tput_per_gpu", "tput_per_gpus").replace("osl", "x")
    with pytest.raises(RowsError, match="column 'osl': the column is missing") as raised:
        import_rows(store, sheet(tmp_path, header + "\n" + ROW))
    mends = {each.column: each.mend for each in raised.value.problems}
    assert mends == {
        "osl": "add it, or give --set osl=VALUE",
        "tput_per_gpu": "rename 'tput_per_gpus', or give --set tput_per_gpu=VALUE",
    }


def test_columns_may_be_given(store: Store, tmp_path: Path) -> None:
    header, line = HEADER.removeprefix("series,"), ROW.removeprefix("feb,")
    path = sheet(tmp_path, header + "\n" + line)
    assert import_rows(store, path, {"series": "mine"}).added == {"mine": 1}
    with pytest.raises(InputError, match=r"--set tp: .* has that column"):
        import_rows(store, path, {"series": "mine", "tp": "1"})
    with pytest.raises(InputError, match="--set colour: no such column; known are accuracy"):
        import_rows(store, path, {"colour": "red"})
    with pytest.raises(RowsError, match="column 'series': the cell is empty"):
        import_rows(store, path, {"series": ""})
    assert read_assignments(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="write --set COLUMN=VALUE"):
            read_assignments(wrong)


WRONG_FILES = [
    (b"", "the file is empty"),
    (b"\xef\xbb\xbf \n", "the file is empty"),
    (HEADER.encode(), "there is a header and no row"),
    (HEADER.replace(",", ";").encode() + b"\n1;2", "cells are separated by semicolons"),
    (HEADER.replace(",", "\t").encode() + b"\n1\t2", "cells are separated by tabs"),
    (b"PK\x03\x04\x00\x00binary", "is no text file; give CSV or JSON"),
    (HEADER.encode("utf-16"), "the text is UTF-16; save it as UTF-8"),
    (f"{HEADER}\nM\u00fcnchen".encode("latin-1"), "line 2: the text is not UTF-8"),
    ((HEADER + ",tp\n" + ROW + ",1").encode(), "column 'tp': it comes twice"),
    ((HEADER + ",\n" + ROW + ",1").encode(), "column 14: the header has no name for it"),
    ((HEADER + '\n"feb,2026').encode(), "check the double quotes"),
    (b"[]", "the list is empty"),
    (b'[{"series": ]', "line 1, character 13: is no JSON"),
    (b"[1, 2]", "item 1: is no object"),
    (b"{", "is no JSON"),
]


@pytest.mark.parametrize(("content", "message"), WRONG_FILES)
def test_wrong_files(content: bytes, message: str, store: Store, tmp_path: Path) -> None:
    path = sheet(tmp_path, content)
    with pytest.raises(InputError) as raised:
        import_rows(store, path)
    assert str(raised.value).startswith(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert store.series() == []


def test_missing_files_folders_and_sets(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        import_rows(store, str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="is a folder; name a CSV or JSON file"):
        import_rows(store, str(tmp_path))
    for name in ("", "nothing", "../../secret"):
        with pytest.raises(InputError, match="name one of mi355x-qwen35, h200-qwen35-35b-vllm"):
            import_rows(store, f"published:{name}")


def json_row(**changes: object) -> dict[str, object]:
    return {
        "series": "feb", "measured_on": "2026-02-20", "hardware": "MI355X", "model": "Q",
        "isl": 8192, "osl": 1024, "tp": 8, "gpus": 8, "concurrency": 4, "tput_per_gpu": 171.9,
        "interactivity": 40.86,
    } | changes  # fmt: skip


def test_json_rows(store: Store, tmp_path: Path) -> None:
    rows = [json_row(), json_row(concurrency=8, note={"any": ["thing"]}, ttft_ms=None)]
    done = import_rows(store, sheet(tmp_path, json.dumps(rows), "rows.json"))
    assert (done.added, done.unknown_columns) == ({"feb": 2}, ["note"])
    assert [each["result"] for each in store.rows()] == [{}, {"note": {"any": ["thing"]}}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tp": True}, "column 'tp': True is not a number"),
        ({"interactivity": False}, "column 'interactivity': False is not a number"),
        ({"series": 5}, "column 'series': 5 is not text; put it in quotes"),
        ({"tp": [1]}, r"column 'tp': \[1\] is not a whole number"),
        ({"measured_on": 5}, "column 'measured_on': 5 is no date"),
        ({"recipe": [1]}, r"column 'recipe': \[1\] is no JSON of the right form"),
        ({"isl": None}, "column 'isl': the cell is empty"),
        ({"repeat": -1}, "column 'repeat': -1 is below 0"),
        ({"run": "../x"}, "column 'run': '../x' has the wrong form; use letters"),
        ({"source": "rumour"}, "column 'source': 'rumour' has the wrong form; write sweep"),
    ],
)
def test_wrong_json_cells(
    changes: dict[str, object], message: str, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(RowsError, match="item 2, " + message):
        import_rows(store, sheet(tmp_path, json.dumps([json_row(), json_row(**changes)])))


def test_what_bench_prints_is_kept_whole(store: Store, tmp_path: Path) -> None:
    bench = {
        "concurrency": 4, "isl": 64, "osl": 16, "requests": 40, "failed": 0, "duration_s": 9.5,
        "tput_per_gpu": 100.0, "input_tput_per_gpu": 80.0, "output_tput_per_gpu": 20.0,
        "interactivity": 50.0, "ttft_ms": {"mean": 31.0, "p50": 30.0, "p99": None},
        "tpot_ms": {"mean": 21.0, "p50": 20.0, "p99": None}, "client": {"saturated": False},
    }  # fmt: skip
    given = {
        "series": "mine", "measured_on": "2026-11-23", "hardware": "H200", "model": "Q", "tp": "1",
        "gpus": "1",
    }  # fmt: skip
    lines = b"\n".join(orjson.dumps(bench | {"concurrency": c}) for c in (4, 8))
    assert import_rows(store, sheet(tmp_path, lines), given).added == {"mine": 2}
    first, _ = store.rows()
    assert (first["ttft_ms"], first["tpot_ms"], first["source"]) == (30.0, 20.0, "bench")
    assert first["result"] == bench


def test_rows_of_one_run_agree(store: Store, tmp_path: Path) -> None:
    rows = [json_row(run="r1"), json_row(run="r1", hardware="H200")]
    with pytest.raises(RowsError, match="item 2, column 'hardware': differs from row 1"):
        import_rows(store, sheet(tmp_path, json.dumps(rows)))
    rows = [json_row(run="r1", repeat=0), json_row(run="r1", repeat=0)]
    with pytest.raises(RowsError, match=r"item 2, column 'repeat': 0 comes twice .* in row 1"):
        import_rows(store, sheet(tmp_path, json.dumps(rows)))


def test_a_run_that_the_store_has_with_other_rows(store: Store, tmp_path: Path) -> None:
    import_rows(store, sheet(tmp_path, json.dumps([json_row(run="r1")])))
    changed = sheet(tmp_path, json.dumps([json_row(run="r1", tput_per_gpu=1.0)]))
    with pytest.raises(InputError, match="run r1: the store has it with other rows; remove"):
        import_rows(store, changed)
    assert store.points("feb")[0].tput_per_gpu == 171.9
