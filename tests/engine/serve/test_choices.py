"""Several choices for a prompt, and completions that begin with their prompts."""

import json

import pytest

from upcurve.engine.model.checkpoint import SPECIAL_TOKENS

from . import patient
from .running import MODEL

PROMPT = [5, 77, 300, 12]
MESSAGES = [{"role": "user", "content": "hi"}]
EXTRA = {"ignore_eos": True, "return_token_ids": True}


def complete(client, extra=None, **options):
    options = {"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **options}
    return client.completions.create(extra_body={**EXTRA, **(extra or {})}, **options)


def chat(client, **options):
    options = {"model": MODEL, "messages": MESSAGES, "max_tokens": 12, **options}
    return client.chat.completions.create(extra_body=EXTRA, **options)


def by_choice(stream):
    """Return the token ids of a stream by choice, and its last usage."""
    tokens, usage = {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            tokens.setdefault(choice.index, []).extend(choice.token_ids)
    return tokens, usage


def test_greedy_choices_are_equal_and_the_prompt_counts_once(client):
    answer = complete(client, n=3, best_of=3)
    single = complete(client)
    assert [each.index for each in answer.choices] == [0, 1, 2]
    assert [each.token_ids for each in answer.choices] == [single.choices[0].token_ids] * 3
    assert answer.usage.prompt_tokens == 4
    assert answer.usage.completion_tokens == 36


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ask", [complete, chat])
def test_each_choice_has_the_seed_after_the_one_before(client, ask, stream):
    options = {"temperature": 1.0, "stream": stream}
    if stream:
        options["stream_options"] = {"include_usage": True}
    answer = ask(client, n=3, seed=7, **options)
    if stream:
        tokens, usage = by_choice(answer)
    else:
        tokens = {each.index: each.token_ids for each in answer.choices}
        usage = answer.usage
    singles = [ask(client, seed=7 + i, temperature=1.0) for i in range(3)]
    assert tokens == {i: each.choices[0].token_ids for i, each in enumerate(singles)}
    assert len({tuple(each) for each in tokens.values()}) == 3
    assert usage.prompt_tokens == singles[0].usage.prompt_tokens
    assert usage.completion_tokens == 36


def test_seeds_wrap_around(client):
    last, first = 2**63 - 1, -(2**63)
    pair = complete(client, n=2, seed=last, temperature=1.0).choices
    single = complete(client, seed=first, temperature=1.0).choices[0]
    assert pair[1].token_ids == single.token_ids


def test_choices_are_counted_prompt_by_prompt(client):
    prompts = [[9, 8, 7], PROMPT]
    answer = complete(client, prompt=prompts, n=2)
    singles = [complete(client, prompt=each).choices[0].token_ids for each in prompts]
    assert [each.index for each in answer.choices] == [0, 1, 2, 3]
    expected = [singles[0], singles[0], singles[1], singles[1]]
    assert [each.token_ids for each in answer.choices] == expected
    assert answer.usage.prompt_tokens == 7


def test_every_choice_of_a_chat_stream_begins_with_the_role(client):
    chunks = [each.choices[0] for each in chat(client, n=2, temperature=0, stream=True)]
    for index in (0, 1):
        roles = [each.delta.role for each in chunks if each.index == index]
        assert roles == ["assistant"] + [None] * 11


@pytest.mark.parametrize("stream", [False, True])
def test_echo_of_a_text(client, server, stream):
    text = "the value of x"
    ids = server.tokenizer.encode(text, add_special_tokens=True)
    plain = complete(client, prompt=text)
    options = {"prompt": text, "echo": True, "n": 2, "stream": stream}
    if stream:
        options["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    answer = complete(client, **options)
    chunks = list(answer) if stream else [answer]
    choices = [each for chunk in chunks for each in chunk.choices if each.index == 1]
    assert "".join(each.text for each in choices) == text + plain.choices[0].text
    assert [token for each in choices for token in each.token_ids] == [
        *ids,
        *plain.choices[0].token_ids,
    ]
    assert chunks[-1].usage.prompt_tokens == len(ids)
    # Echoed tokens are no generated ones.
    assert chunks[-1].usage.completion_tokens == 24
    if stream:
        assert [each.usage.completion_tokens for each in chunks[:-1]] == [*range(1, 25)]


def test_echo_with_logprobs(client, server):
    text = "the value of x"
    choice = complete(client, prompt=text, echo=True, logprobs=2).choices[0]
    ids = server.tokenizer.encode(text, add_special_tokens=True)
    logprobs = choice.logprobs
    count = len(ids)
    assert logprobs.tokens == [server.tokenizer.token_name(each) for each in choice.token_ids]
    assert logprobs.token_logprobs[:count] == [None] * count
    assert logprobs.top_logprobs[:count] == [None] * count
    assert all(value <= 0 for value in logprobs.token_logprobs[count:])
    assert logprobs.text_offset[count] == len(text)
    for name, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        if not name.startswith("bytes:") and name not in SPECIAL_TOKENS:
            assert choice.text[offset:].startswith(name)


def test_echo_alone_generates_nothing(server, client):
    before = server.value("generated_tokens_total")
    answer = complete(client, prompt=["ab", "c d"], echo=True, max_tokens=0, n=2)
    assert [each.text for each in answer.choices] == ["ab", "ab", "c d", "c d"]
    assert [each.finish_reason for each in answer.choices] == ["length"] * 4
    assert answer.usage.completion_tokens == 0
    stream = {"include_usage": True}
    *chunks, last = complete(client, echo=True, max_tokens=0, stream=True, stream_options=stream)
    assert [each.choices[0].token_ids for each in chunks] == [PROMPT]
    assert last.usage.total_tokens == 4
    assert server.value("generated_tokens_total") == before
    body = {"model": MODEL, "prompt": [1], "echo": True, "max_tokens": 0, "stream": True}
    wire = patient.post(f"{server.url}/v1/completions", json=body)
    assert wire.headers.get_list("content-type") == ["text/event-stream; charset=utf-8"]
    first, done, _ = wire.text.split("\n\n")
    assert json.loads(first.removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert done == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_logprobs_end_where_a_stop_string_cuts(client, stream, keep):
    whole = complete(client, logprobs=1).choices[0]
    stop = whole.text[4:7]
    extra = {"include_stop_str_in_output": keep}
    answer = complete(client, logprobs=1, stop=stop, stream=stream, extra=extra)
    parts = [each.choices[0] for each in answer] if stream else answer.choices
    text = "".join(each.text for each in parts)
    assert text == whole.text[: whole.text.index(stop) + (len(stop) if keep else 0)]
    names = [name for each in parts for name in each.logprobs.tokens]
    kept = [n for n, offset in enumerate(whole.logprobs.text_offset) if offset < len(text)]
    assert names == [whole.logprobs.tokens[n] for n in kept]


def test_special_tokens_and_the_stop_token_are_text_where_asked(client, server, monkeypatch):
    first = complete(client, max_tokens=1).choices[0].token_ids[0]
    special = server.tokenizer.encode(SPECIAL_TOKENS[0], add_special_tokens=False)[0]
    prompt = [special, *PROMPT]
    hidden = complete(client, prompt=prompt, echo=True, max_tokens=0).choices[0].text
    extra = {"skip_special_tokens": False}
    shown = complete(client, prompt=prompt, echo=True, max_tokens=0, extra=extra).choices[0].text
    assert shown == SPECIAL_TOKENS[0] + hidden
    # What the model says first becomes its end: no text of its own, unless asked for.
    monkeypatch.setattr(server.engine, "end_of_sequence_ids", (first,))
    name = server.tokenizer.token_bytes(first).decode("utf-8", "replace")
    ends = {"ignore_eos": False}
    assert complete(client, extra=ends).choices[0].text == ""
    kept = complete(client, extra={**ends, "include_stop_str_in_output": True}).choices[0]
    assert (kept.text, kept.finish_reason) == (name, "stop")
