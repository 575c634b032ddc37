import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.model.checkpoint import SPECIAL_TOKENS, train_tokenizer
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.serve.answer import CompletionAnswer
from upcurve.engine.serve.choice import Choice, Delta, Echo
from upcurve.engine.serve.detokenizer import Detokenizer
from upcurve.engine.serve.tokenizer import ByteTokenizer

LIBRARY: Tokenizer = train_tokenizer(400)
OURS = ByteTokenizer(LIBRARY)
SPECIAL = LIBRARY.token_to_id(SPECIAL_TOKENS[1])
PARTS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "é", "€", "c"]), min_size=1, max_size=20)


def run(token_ids, stop, echo=None):
    """Return the deltas of a choice that ends with its last token or a stop string."""
    request = Request("x", [1], SamplingParameters(len(token_ids)))
    choice = Choice(0, request, Detokenizer(OURS, stop), echo)
    deltas = []
    for number, token in enumerate(token_ids):
        finish = "length" if number == len(token_ids) - 1 else None
        deltas.append(choice.push(Event("x", token, TokenLogprobs(-number, ()), finish)))
        if choice.finished:
            break
    return deltas


def ids(parts):
    return [token for part in parts for token in LIBRARY.encode(part).ids]


@given(PARTS, st.lists(st.text("abcé", min_size=1, max_size=4), max_size=2))
def test_tokens_that_a_stop_string_cuts_have_no_logprobs(parts, stop):
    token_ids = ids(parts)
    deltas = run(token_ids, stop)
    text = "".join(each.text for each in deltas)
    entries = [entry for each in deltas for entry in each.logprobs]
    # The oracle: where each token's text begins in all of the text, decoded at once.
    whole = "".join(parts)
    raw = whole.encode()
    begins, at = [], 0
    for token in token_ids:
        begins.append(len(raw[:at].decode("utf-8", "ignore")))
        at += len(OURS.token_bytes(token))
    stopped = any(each in whole for each in stop)
    kept = [n for n, begin in enumerate(begins) if begin < len(text) or not stopped]
    assert [entry.token for entry in entries] == [token_ids[n] for n in kept]
    assert [entry.offset for entry in entries] == [begins[n] for n in kept]
    assert [entry.logprobs.chosen for entry in entries] == [-n for n in kept]


@given(PARTS, st.lists(st.text("abcé", min_size=1, max_size=4), max_size=2))
def test_logprobs_never_come_before_their_text(parts, stop):
    shown = 0
    for delta in run(ids(parts), stop):
        shown += len(delta.text)
        if stop and delta.finish is None:
            assert all(entry.offset < shown for entry in delta.logprobs)
        if not stop:
            assert len(delta.logprobs) == 1


@given(PARTS, PARTS)
def test_an_echo_comes_with_the_first_token(prompt, output):
    text = "".join(prompt)
    echo = Echo(ids(prompt), text, OURS, special_tokens=False, logprobs=True)
    first, *others = run(ids(output), [], echo)
    assert first.token_ids == [*ids(prompt), ids(output)[0]]
    assert first.text.startswith(text)
    assert first.generated == 1
    assert "".join(each.text for each in (first, *others)) == text + "".join(output)
    assert [entry.logprobs for entry in first.logprobs[:-1]] == [None] * len(ids(prompt))
    assert first.logprobs[-1].offset == len(text)
    offsets = [entry.offset for each in (first, *others) for entry in each.logprobs]
    assert offsets == sorted(offsets)


def test_special_tokens_of_an_echo():
    prompt = [SPECIAL, *ids(["ab"])]

    def echo(text, special_tokens):
        made = Echo(prompt, text, OURS, special_tokens=special_tokens, logprobs=True)
        return made.delta(0, "length")

    assert echo(None, False).text == "ab"
    assert echo(None, True).text == f"{SPECIAL_TOKENS[1]}ab"
    given_text = echo(f"{SPECIAL_TOKENS[1]}ab", False)
    assert given_text.text == f"{SPECIAL_TOKENS[1]}ab"
    assert [e.offset for e in given_text.logprobs][:2] == [0, len(SPECIAL_TOKENS[1])]
    bare = Echo(prompt, None, None, special_tokens=False, logprobs=False).delta(3)
    assert (bare.index, bare.text, bare.token_ids, bare.logprobs) == (3, "", prompt, [])


@pytest.mark.parametrize("token_ids", [True, False])
@pytest.mark.parametrize("text", ["", 'a"b\\\n\u2028é', "\U0001f600"])
def test_a_plain_chunk_is_the_general_one(token_ids, text):
    answer = CompletionAnswer(
        "m", None, prompt_tokens=3, token_ids=token_ids, logprobs=False, usage_in_stream=False
    )
    delta = Delta(2, text, [7, 99], 2)
    chunk = answer.chunk(delta)
    (choice,) = orjson.loads(chunk.removeprefix(b"data: "))["choices"]
    assert choice == answer._chunk_choice(delta)
    assert chunk.endswith(b"}\n\n")
