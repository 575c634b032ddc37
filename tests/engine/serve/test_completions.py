import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from upcurve.engine.build import build_engine
from upcurve.engine.schedule.request import SamplingParameters

from . import patient
from .running import CONTEXT, MODEL, OPTIONS

PROMPT = [5, 77, 300, 12]
EXTRA = {"ignore_eos": True, "return_token_ids": True}


@pytest.fixture(scope="module")
def offline(checkpoint):
    """The same model without a server: the oracle."""
    return build_engine(checkpoint, OPTIONS)


def complete(client, prompt=PROMPT, extra=None, **options):
    options = {"model": MODEL, "max_tokens": 20, "temperature": 0, **options}
    return client.completions.create(
        prompt=prompt, extra_body={**EXTRA, **(extra or {})}, **options
    )


def greedy(offline, prompt=PROMPT, tokens=20):
    sampling = SamplingParameters(tokens, temperature=0, ignore_eos=True)
    return offline.generate([prompt], sampling)[0]


def test_greedy_tokens_text_and_usage(client, server, offline):
    answer = complete(client)
    choice = answer.choices[0]
    expected = greedy(offline)
    assert choice.token_ids == expected
    assert choice.text == b"".join(map(server.tokenizer.token_bytes, expected)).decode(
        "utf-8", "replace"
    )
    assert choice.finish_reason == "length"
    assert answer.usage.prompt_tokens == 4
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == 24
    assert answer.object == "text_completion"
    assert answer.model == MODEL


def test_every_chunk_carries_the_usage_so_far_where_asked(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(complete(client, stream=True, stream_options=options))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == [*range(1, len(chunks)), len(chunks) - 1]
    assert {chunk.usage.prompt_tokens for chunk in chunks} == {4}


def test_a_stream_says_the_same_token_by_token(client):
    whole = complete(client)
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    *tokens, last = chunks
    assert len(tokens) == 20
    assert [each.choices[0].token_ids for each in tokens] == [
        [token] for token in whole.choices[0].token_ids
    ]
    assert "".join(each.choices[0].text for each in tokens) == whole.choices[0].text
    assert [each.choices[0].finish_reason for each in tokens] == [None] * 19 + ["length"]
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(each.usage is None for each in tokens)


def test_a_stream_on_the_wire(server):
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 3, "stream": True, "ignore_eos": True}
    answer = patient.post(f"{server.url}/v1/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    objects = [json.loads(each.removeprefix("data: ")) for each in events]
    assert len(objects) == 3
    assert "usage" not in objects[0]
    assert "token_ids" not in objects[0]["choices"][0]


def test_texts_and_their_token_ids_are_the_same_prompt(client, server):
    text = "the value of x"
    ids = server.tokenizer.encode(text, add_special_tokens=True)
    assert complete(client, text).choices[0].token_ids == complete(client, ids).choices[0].token_ids


@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts_give_several_choices(client, server, offline, stream):
    prompts = [[9, 8, 7], PROMPT, list(range(100))]
    expected = [greedy(offline, each) for each in prompts]
    got = [[], [], []]
    if stream:
        for chunk in complete(client, prompts, stream=True):
            got[chunk.choices[0].index] += chunk.choices[0].token_ids
    else:
        answer = complete(client, prompts)
        assert answer.usage.prompt_tokens == 107
        assert answer.usage.completion_tokens == 60
        for choice in answer.choices:
            got[choice.index] = choice.token_ids
    assert got == expected


def test_list_of_texts(client):
    answer = complete(client, ["one", "two"])
    assert [each.index for each in answer.choices] == [0, 1]
    single = [complete(client, each).choices[0].text for each in ("one", "two")]
    assert [each.text for each in answer.choices] == single


def test_sixteen_tokens_where_nothing_is_said(client):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, extra_body=EXTRA)
    assert answer.usage.completion_tokens == 16


def test_a_stop_token_ends(client, offline):
    expected = greedy(offline)
    answer = complete(client, extra={"stop_token_ids": [expected[5]]})
    first = expected.index(expected[5])
    assert answer.choices[0].token_ids == expected[: first + 1]
    assert answer.choices[0].finish_reason == "stop"


def test_end_of_sequence_ends_unless_ignored(client, server, offline, monkeypatch):
    expected = greedy(offline)
    # A random model seldom says its own end; one that it is certain to say takes its place.
    monkeypatch.setattr(server.engine, "end_of_sequence_ids", (expected[5],))
    ended = complete(client, extra={"ignore_eos": False})
    assert ended.choices[0].token_ids == expected[: expected.index(expected[5]) + 1]
    assert ended.choices[0].finish_reason == "stop"
    assert complete(client).choices[0].token_ids == expected


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_cuts_the_text_and_frees_the_request(client, server, stream):
    text = complete(client).choices[0].text
    stop = text[4:7]
    stopped = server.value("requests_finished_total", reason="stop")
    server.gate.allow(30)
    answer = complete(client, stop=[stop, "never there"], max_tokens=200, stream=stream)
    if stream:
        choices = [chunk.choices[0] for chunk in answer]
        got, finish = "".join(each.text for each in choices), choices[-1].finish_reason
    else:
        got, finish = answer.choices[0].text, answer.choices[0].finish_reason
        assert answer.usage.completion_tokens < 20
    assert got == text[: text.index(stop)]
    assert finish == "stop"
    server.freed_within_a_step()
    assert server.value("requests_finished_total", reason="stop") == stopped + 1


def test_a_seed_repeats_and_another_differs(client):
    def draw(seed):
        return complete(client, temperature=1.0, seed=seed).choices[0].token_ids

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_top_k_of_one_and_a_tiny_top_p_are_greedy(client, offline):
    expected = greedy(offline)
    assert complete(client, temperature=1.5, extra={"top_k": 1}).choices[0].token_ids == expected
    assert complete(client, temperature=1.5, top_p=1e-6).choices[0].token_ids == expected
    free = complete(client, temperature=1.5, extra={"top_k": -1}, seed=3)
    assert free.choices[0].token_ids != expected


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client, server, stream):
    answer = complete(client, logprobs=3, stream=stream, max_tokens=6)
    if stream:
        parts = [chunk.choices[0] for chunk in answer]
        tokens, values, top, offsets = (
            [value for part in parts for value in getattr(part.logprobs, name)]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        )
        ids = [token for part in parts for token in part.token_ids]
        text = "".join(part.text for part in parts)
    else:
        choice = answer.choices[0]
        tokens, values = choice.logprobs.tokens, choice.logprobs.token_logprobs
        top, offsets = choice.logprobs.top_logprobs, choice.logprobs.text_offset
        ids, text = choice.token_ids, choice.text
    assert tokens == [server.tokenizer.token_name(token) for token in ids]
    assert all(value <= 0 for value in values)
    # Greedy: the chosen token leads the most likely ones.
    assert [max(each, key=each.get) for each in top] == tokens
    assert [max(each.values()) for each in top] == pytest.approx(values)
    assert all(len(each) == 3 for each in top)
    assert offsets[0] == 0
    whole = [t for t in tokens if not t.startswith("bytes:")]
    assert all(t in text for t in whole)


def test_no_logprobs_where_none_are_asked_for(client):
    assert complete(client).choices[0].logprobs is None


def test_the_whole_context_can_be_used(client):
    answer = complete(client, list(range(CONTEXT - 5)), max_tokens=5)
    assert answer.usage.total_tokens == CONTEXT


def test_more_requests_than_fit_at_once(client, offline):
    prompts = [[i, i + 1, i + 2] for i in range(24)]
    expected = [greedy(offline, each, 8) for each in prompts]
    with ThreadPoolExecutor(24) as pool:
        answers = pool.map(lambda each: complete(client, each, max_tokens=8), prompts)
        assert [each.choices[0].token_ids for each in answers] == expected


def test_harmless_parameters(client):
    complete(client, user="me", n=1, best_of=1, echo=False, presence_penalty=0, suffix=None)
