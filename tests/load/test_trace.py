from __future__ import annotations

import random
from dataclasses import replace

import pyarrow.parquet
from hypothesis import given
from hypothesis import strategies as st

from tests.load.examples import answers, failed, trace
from upcurve.load.trace import from_table, times, to_table


def test_requests_come_back_from_parquet(tmp_path):
    requests = [trace(cached_tokens=3), failed("connect", http_status=None), trace(warm_up=True)]
    file = tmp_path / "trace.parquet"
    pyarrow.parquet.write_table(to_table(requests), file)
    assert from_table(pyarrow.parquet.read_table(file)) == requests


@given(answers, st.integers(0, 2**62))
def test_every_time_comes_back_to_the_nanosecond(answer, start):
    later = replace(answer, sent_ns=start, chunk_ns=times(each + start for each in answer.chunk_ns))
    whole = replace(later, chunk_ns=times(each // 1000 * 1000 for each in later.chunk_ns))
    assert from_table(to_table([whole, answer])) == [whole, answer]


def test_a_request_of_a_thousand_tokens_takes_about_a_kilobyte(tmp_path):
    rng = random.Random(1)
    requests = []
    for start in range(200):
        stamps = [start + 20.0 * index + rng.gauss(0, 0.1) for index in range(1, 1025)]
        requests.append(trace(sent=start, chunks=[(each, 1) for each in sorted(stamps)]))
    file = tmp_path / "trace.parquet"
    pyarrow.parquet.write_table(to_table(requests), file, compression="zstd")
    assert file.stat().st_size / len(requests) < 1600


def test_no_requests_are_an_empty_table():
    assert to_table([]).num_rows == 0
    assert from_table(to_table([])) == []
