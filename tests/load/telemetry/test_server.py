from __future__ import annotations

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.telemetry.expositions import LLAMA_CPP, SGLANG, VLLM, State, upcurve_text
from upcurve.load.telemetry.series import parse_exposition
from upcurve.load.telemetry.server import Scrape, ServerMetrics

SECOND = 10**9

STATES = [
    State(running=0, prompt=1000, generated=500, preemptions=1),
    State(running=4, waiting=2, usage=0.25, prompt=1100, generated=600, preemptions=1),
    State(running=8, waiting=6, usage=0.75, prompt=1400, generated=900, preemptions=3),
    State(running=0, prompt=1600, generated=1300, preemptions=4),
]


def scrapes(texts: list[str]) -> list[Scrape]:
    """One a second, from second 0."""
    return [
        Scrape(second * SECOND, tuple(parse_exposition(text))) for second, text in enumerate(texts)
    ]


WRITERS = {
    "vllm": lambda state: state.write(VLLM),
    "sglang": lambda state: state.write(SGLANG),
    "llama.cpp": lambda state: state.write(LLAMA_CPP),
    "upcurve": upcurve_text,
}


@pytest.mark.parametrize("engine", WRITERS)
def test_the_facts_of_every_engine(engine: str) -> None:
    texts = [WRITERS[engine](state) for state in STATES]
    metrics = ServerMetrics(scrapes(texts), failures_ns=[SECOND // 4, SECOND])
    summary = metrics.summary(SECOND // 2, 5 * SECOND // 2)
    notes = summary.pop("notes")
    assert summary == {
        "engine": engine,
        "scrapes": 2,
        "failed_scrapes": 1,
        "running": {"mean": 6.0, "max": 8.0},
        "waiting": {"mean": 4.0, "max": 6.0},
        "kv_cache_usage": {"mean": 0.5, "max": 0.75},
        "prompt_tokens_per_s": 600 / 3,
        "generation_tokens_per_s": 800 / 3,
        "preemptions": 3.0 if engine != "llama.cpp" else None,
    }
    assert len(notes) == (engine in ("sglang", "llama.cpp"))
    assert all("when a request ends" in note for note in notes)


def test_the_older_name_of_cache_usage() -> None:
    text = State(usage=0.5).write(VLLM).replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
    summary = ServerMetrics(scrapes([text])).summary(0, 0)
    assert summary["kv_cache_usage"] == {"mean": 0.5, "max": 0.5}


def test_data_parallel_parts_are_added_up() -> None:
    first = State(running=3, usage=0.2, generated=100).write(VLLM)
    second = State(running=5, usage=0.6, generated=50).write(VLLM)
    parts = second.replace('engine="0"', 'engine="1"').splitlines()
    both = first + "\n".join(line for line in parts if line.startswith("vllm:")) + "\n"
    summary = ServerMetrics(scrapes([first + "", both])).summary(SECOND, SECOND)
    assert summary["running"] == {"mean": 8.0, "max": 8.0}
    assert summary["kv_cache_usage"]["mean"] == pytest.approx(0.4)


def test_a_counter_that_falls_is_not_told() -> None:
    states = [State(prompt=900, generated=10), State(prompt=50, generated=20), State(prompt=1900)]
    summary = ServerMetrics(scrapes([state.write(VLLM) for state in states[:2]])).summary(0, SECOND)
    assert summary["prompt_tokens_per_s"] is None
    assert summary["generation_tokens_per_s"] == 10.0
    assert summary["notes"] == ["vllm:prompt_tokens_total began anew within the span"]
    summary = ServerMetrics(scrapes([state.write(VLLM) for state in states])).summary(0, 2 * SECOND)
    assert summary["prompt_tokens_per_s"] is None, "though it ends above where it began"


def test_a_part_that_vanishes_is_not_told() -> None:
    line = 'vllm:generation_tokens_total{{engine="{}"}} {}\n'
    texts = [line.format(0, 100) + line.format(1, 50), line.format(0, 900)]
    summary = ServerMetrics(scrapes(texts)).summary(0, SECOND)
    assert summary["generation_tokens_per_s"] is None
    assert summary["notes"] == ["vllm:generation_tokens_total began anew within the span"]


def test_a_reset_outside_the_span_does_not_matter() -> None:
    texts = [State(generated=count).write(VLLM) for count in (900, 0, 40)]
    summary = ServerMetrics(scrapes(texts)).summary(SECOND, 2 * SECOND)
    assert summary["generation_tokens_per_s"] == 40.0


def test_a_counter_that_appears_later_counts_from_zero() -> None:
    texts = ["sglang:num_running_reqs 0\n", State(generated=60).write(SGLANG)]
    summary = ServerMetrics(scrapes(texts)).summary(0, SECOND)
    assert summary["generation_tokens_per_s"] == 60.0


def test_a_span_that_is_not_bracketed_says_so() -> None:
    texts = [State(generated=count).write(VLLM) for count in (0, 40, 100)]
    summary = ServerMetrics(scrapes(texts)).summary(SECOND // 2, 9 * SECOND)
    assert summary["generation_tokens_per_s"] == 50.0, "of what was seen"
    assert any("part of the span" in note for note in summary["notes"])


@pytest.mark.parametrize("text", ["", "process_cpu_seconds_total 3\nup 1\n"])
def test_an_unknown_server_has_no_facts(text: str) -> None:
    summary = ServerMetrics(scrapes([text, text])).summary(0, SECOND)
    assert summary.pop("scrapes") == 2
    assert summary.pop("failed_scrapes") == 0
    assert summary.pop("notes") == []
    assert set(summary.values()) == {None}


def test_no_scrape_at_all() -> None:
    metrics = ServerMetrics([], failures_ns=[3])
    assert metrics.table().num_rows == 0
    assert metrics.summary(0, 10)["failed_scrapes"] == 1


def test_the_table_keeps_what_is_worth_it() -> None:
    table = ServerMetrics(scrapes([State(running=2).write(VLLM)] * 2)).table()
    assert table.schema.names == ["time_ns", "name", "labels", "value"]
    assert table.schema.field("value").type == pyarrow.float64()
    rows = table.to_pylist()
    assert {row["time_ns"] for row in rows} == {0, SECOND}
    names = {row["name"] for row in rows}
    assert "vllm:time_to_first_token_seconds_bucket" in names
    assert {"vllm:iteration_tokens_total_sum", "vllm:iteration_tokens_total_count"} <= names
    assert "vllm:iteration_tokens_total_bucket" not in names
    assert not any(name.endswith("_created") for name in names)
    running = next(row for row in rows if row["name"] == "vllm:num_requests_running")
    assert running["labels"] == "engine=0,model_name=meta-llama/Llama-3.1-8B-Instruct"
    assert running["value"] == 2.0


@given(
    counts=st.lists(st.integers(0, 10**6), min_size=2, max_size=12),
    start=st.integers(0, 11),
    length=st.integers(0, 11),
)
def test_a_rate_is_the_counter_between_the_scrapes(
    counts: list[int], start: int, length: int
) -> None:
    first = min(start, len(counts) - 2)
    last = min(first + 1 + length, len(counts) - 1)
    text = "vllm:generation_tokens_total {}\n"
    metrics = ServerMetrics(scrapes([text.format(count) for count in counts]))
    rate = metrics.summary(first * SECOND, last * SECOND)["generation_tokens_per_s"]
    seen = counts[first : last + 1]
    if seen == sorted(seen):
        assert rate == pytest.approx((seen[-1] - seen[0]) / (last - first))
    else:
        assert rate is None
