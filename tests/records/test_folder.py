from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from upcurve.errors import InputError
from upcurve.records import folder


def test_traces_of_one_point_do_not_overwrite_each_other(tmp_path: Path) -> None:
    tables = [pyarrow.table({"request": [number]}) for number in range(2)]
    paths = [folder.write_trace(tmp_path / "new", "tp1", table) for table in tables]
    for path, table in zip(paths, tables, strict=True):
        assert pyarrow.parquet.read_table(path).equals(table)
    folder.remove_orphans(tmp_path / "new", {paths[1].name})
    assert list((tmp_path / "new").iterdir()) == [paths[1]]
    folder.remove_orphans(tmp_path / "never", set())


@pytest.mark.parametrize("run_id", ["", ".", "..", "a/b", "/etc", "-x", "a\nb", "x" * 81])
def test_names_that_cannot_be_files(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot name a file"):
        folder.trace_folder(tmp_path, run_id)


def test_telemetry_lies_beside_its_trace_and_goes_with_it(tmp_path):
    table = pyarrow.table({"time_ns": [1, 2]})
    kept, lost = (folder.write_trace(tmp_path, "c2", table) for _ in range(2))
    for trace in (kept, lost):
        folder.write_telemetry(trace, {"server": table, "gpus": table.slice(1)})
    assert folder.read_telemetry(kept) == {"gpus": table.slice(1), "server": table}
    folder.remove_orphans(tmp_path, {kept.name})
    assert len(list(tmp_path.iterdir())) == 3
    assert folder.read_telemetry(lost) == {}
    folder.remove_trace(kept)
    assert list(tmp_path.iterdir()) == []
