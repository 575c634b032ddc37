from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.load.answer import Answer, error_message


def event(text="a", ids=None, **more):
    choice = {"text": text, "index": 0} | ({} if ids is None else {"token_ids": ids})
    return b"data: " + orjson.dumps({"choices": [choice | more]}) + b"\n\n"


def usage(prompt, output):
    counts = {"prompt_tokens": prompt, "completion_tokens": output}
    return b"data: " + orjson.dumps({"choices": [], "usage": counts}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def read(*reads):
    answer = Answer()
    for time, data in enumerate(reads, 1):
        answer.feed(time * 1000 + 7, data)
    answer.finish()
    return answer


def chunks(answer):
    """Times in microseconds, and tokens."""
    times, tokens = answer.chunks
    return tuple(time / 1000 for time in times), tuple(tokens)


def test_ids_are_counted_where_there_is_no_text_yet():
    answer = read(event("", [1]), event("ab", [2, 3]), event(""), usage(7, 3), DONE)
    assert chunks(answer) == ((1, 2), (1, 2))
    assert (answer.prompt_tokens, answer.output_tokens, answer.counted_tokens) == (7, 3, 3)
    assert answer.failure is None


def test_without_ids_the_total_is_spread():
    answer = read(event(), event(), event(), usage(7, 8), DONE)
    assert chunks(answer) == ((1, 2, 3), (3, 3, 2))
    assert answer.counted_tokens is None


def test_without_ids_and_usage_a_chunk_is_a_token():
    assert chunks(read(event(), event(), DONE)) == ((1, 2), (1, 1))


def test_the_finish_reason():
    assert read(event(), event(finish_reason="stop"), usage(1, 2), DONE).finish_reason == "stop"


@given(st.lists(st.integers(1, 400), max_size=12))
def test_where_the_network_cuts_is_no_matter(cuts):
    """An event is stamped with the read that completed it."""
    stream = event("", [1]) + b": ping\r\n\r\n" + event("é", [2]).replace(b"\n", b"\r\n") + DONE
    edges = sorted({0, *(each for each in cuts if each < len(stream)), len(stream)})
    reads = [stream[a:b] for a, b in itertools.pairwise(edges)]
    answer = read(*reads)
    assert answer.failure is None
    assert chunks(answer)[1] == (1, 1)
    ends = [len(event("", [1])) - 1, stream.index(DONE) - 2]
    expected = [next(i for i, edge in enumerate(edges) if edge >= end) for end in ends]
    assert list(chunks(answer)[0]) == expected


@pytest.mark.parametrize(
    ("stream", "failure"),
    [
        (event(), "cut"),
        (b"", "cut"),
        (event() + b"data: [DO", "cut"),
        (DONE, "malformed"),
        (usage(1, 1) + DONE, "malformed"),
        (b"data: {no\n\n" + DONE, "malformed"),
        (b'data: {"x": 1}\n\n' + DONE, "malformed"),
        (b"data: 7\n\n" + DONE, "malformed"),
        (b'{"choices": [{"text": "whole"}]}', "malformed"),
        (b"<html>\n</html>\n", "malformed"),
        (usage(-1, 1) + event() + DONE, "malformed"),
        (event() + b'data: {"error": {"message": "boom"}}\n\n' + DONE, "error_event"),
        (event() + b'data: {"error": "boom"}\n\n', "error_event"),
    ],
)
def test_every_broken_answer_is_a_failure(stream, failure):
    answer = read(stream)
    assert answer.failure == failure
    assert answer.detail
    assert "\n" not in answer.detail


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (b'{"error": "plain"}', "plain"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"<h1>\n502</h1>", "<h1> 502</h1>"),
        (b"[1]", "[1]"),
        (b"", ""),
    ],
)
def test_what_an_error_says(body, message):
    assert error_message(body) == message
