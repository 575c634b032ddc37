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


def sse(*objects):
    return [b"data: " + orjson.dumps(each) + b"\n\n" for each in objects] + [DONE]


STREAMS = {
    # As the servers write them, fields that do not count included.
    "vllm completions with ids": sse(
        *(
            {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "usage": None,
             "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": end,
                          "stop_reason": None, "prompt_token_ids": None, "token_ids": [token]}]}
            for token, text, end in ((5, " a", None), (6, "", None), (7, " b", "length"))
        ),
        {"id": "cmpl-1", "object": "text_completion", "choices": [],
         "usage": {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3}},
    ),
    "vllm chat with running usage": sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""},
                      "logprobs": None, "finish_reason": None}],
         "usage": {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0}},
        *(
            {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": end}],
             "usage": {"prompt_tokens": 4, "total_tokens": 4 + count, "completion_tokens": count}}
            for count, end in ((2, None), (3, "length"))
        ),
        {"choices": [], "usage": {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3}},
    ),
    "sglang chat": sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "",
                      "reasoning_content": None, "tool_calls": None},
                      "logprobs": None, "finish_reason": None, "matched_stop": None}],
         "usage": None},
        *(
            {"choices": [{"index": 0, "delta": {"role": None, "content": "x",
                          "reasoning_content": None, "tool_calls": None},
                          "logprobs": None, "finish_reason": None, "matched_stop": None}],
             "usage": None}
            for _ in range(3)
        ),
        {"choices": [{"index": 0, "delta": {"content": None}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7,
                                  "prompt_tokens_details": None}},
    ),
    "llama.cpp completions": sse(
        *(
            {"choices": [{"text": "x", "index": 0, "logprobs": None, "finish_reason": None}],
             "created": 1, "model": "m", "system_fingerprint": "b1", "object": "text_completion"}
            for _ in range(3)
        ),
        {"choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}],
         "usage": {"completion_tokens": 3, "prompt_tokens": 4, "total_tokens": 7},
         "timings": {"prompt_n": 4, "predicted_n": 3, "predicted_per_second": 9.5}},
    ),
    "reasoning before the answer": sse(
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "so"}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("bulk", [True, False])
def test_streams_as_servers_write_them(name, bulk):
    answer = Answer()
    reads = [(1000 * time, data) for time, data in enumerate(STREAMS[name], 1)]
    if bulk:
        answer.take(reads)
    else:
        for time, data in reads:
            answer.feed(time, data)
    answer.finish(3)
    assert answer.failure is None, answer.detail
    assert (answer.prompt_tokens, answer.output_tokens) == (4, 3)
    assert sum(answer.chunks[1]) == 3
    assert answer.finish_reason == "length"
    first = {"reasoning before the answer": 3, "vllm completions with ids": 1}.get(name)
    if first is not None:
        assert answer.first_answer_ns == first * 1000
    if "chat" in name:  # the first event has a role and no token
        assert answer.chunks[0][0] == 2000


@given(st.lists(st.sampled_from(["id", "text", "both", "comment", "usage"]), max_size=30))
def test_at_once_or_one_by_one_is_the_same(kinds):
    made = {
        "id": lambda: event("", [1]),
        "text": lambda: event("a"),
        "both": lambda: event("a", [1, 2]),
        "comment": lambda: b": ping\n\n",
        "usage": lambda: usage(3, 4),
    }
    reads = [(1000 * n, made[kind]()) for n, kind in enumerate(kinds)] + [(99_000, DONE)]
    at_once, one_by_one = Answer(), Answer()
    at_once.take(reads)
    for time, data in reads:
        one_by_one.feed(time, data)
    for answer in (at_once, one_by_one):
        answer.finish()
    assert at_once == one_by_one
    assert at_once.chunks == one_by_one.chunks
