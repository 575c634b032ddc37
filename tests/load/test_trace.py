from __future__ import annotations

import pyarrow.parquet

from tests.load.examples import failed, trace
from upcurve.load.trace import from_table, to_table


def test_requests_come_back_from_parquet(tmp_path):
    requests = [trace(cached_tokens=3), failed("connect", http_status=None), trace(warm_up=True)]
    file = tmp_path / "trace.parquet"
    pyarrow.parquet.write_table(to_table(requests), file)
    assert from_table(pyarrow.parquet.read_table(file)) == requests


def test_no_requests_are_an_empty_table():
    assert to_table([]).num_rows == 0
    assert from_table(to_table([])) == []
