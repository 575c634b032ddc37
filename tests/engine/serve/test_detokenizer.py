import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.checkpoint import SPECIAL_TOKENS, train_tokenizer
from upcurve.engine.serve.detokenizer import Detokenizer
from upcurve.engine.serve.tokenizer import ByteTokenizer

LIBRARY = train_tokenizer(400)
LIBRARY.add_tokens(["<think>", "two words", "½ é"])
VOCABULARY = LIBRARY.get_vocab_size()
OURS = ByteTokenizer(LIBRARY)

tokens = st.lists(st.integers(0, VOCABULARY + 20), max_size=40)
texts = st.text(st.characters(codec="utf-8"), max_size=30)


def pieces(token_ids, stop=()):
    """Push all tokens, stopping where a server would."""
    detokenizer = Detokenizer(OURS, stop)
    out = []
    for token in token_ids:
        out.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    return [*out, detokenizer.finish()], detokenizer.stopped


def cut(text, stop):
    """Read one character at a time; cut where the first stop string is complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


@given(tokens)
def test_any_tokens_give_the_text_of_decoding_them_at_once(token_ids):
    assert "".join(pieces(token_ids)[0]) == LIBRARY.decode(token_ids)


@given(texts)
def test_a_text_comes_back_and_never_half_a_character(text):
    out, _ = pieces(OURS.encode(text, add_special_tokens=False))
    assert "".join(out) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in out)


@given(texts.filter(bool), st.lists(st.text(st.sampled_from("ab é€"), min_size=1, max_size=4)))
def test_single_bytes_give_whole_characters(text, stop):
    alphabet = {OURS.token_bytes(token): token for token in range(VOCABULARY)}
    out, _ = pieces([alphabet[bytes([byte])] for byte in text.encode()], stop)
    assert "".join(out) == cut(text, stop)


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab", "é", "c"]), max_size=25),
    st.lists(st.text("abcé", min_size=1, max_size=5), min_size=1, max_size=3),
)
def test_stop_strings_cut_where_the_text_alone_says(parts, stop):
    token_ids = [token for part in parts for token in LIBRARY.encode(part).ids]
    out, stopped = pieces(token_ids, stop)
    assert "".join(out) == cut("".join(parts), stop)
    assert stopped == any(each in "".join(parts) for each in stop)


@given(st.lists(st.sampled_from("abc"), max_size=25), st.text("abc", min_size=1, max_size=5))
def test_text_is_held_back_only_while_it_may_be_a_stop_string(letters, stop):
    detokenizer = Detokenizer(OURS, [stop])
    text = shown = ""
    for letter in letters:
        (token,) = LIBRARY.encode(letter).ids
        text += letter
        shown += detokenizer.push(token)
        if detokenizer.stopped:
            break
        held = text[len(shown) :]
        assert shown + held == text
        assert stop.startswith(held)
        longer = [text[-n:] for n in range(len(held) + 1, len(stop)) if n <= len(text)]
        assert not any(stop.startswith(each) for each in longer)


def test_the_stop_string_that_is_complete_first_cuts_also_within_one_token():
    token = LIBRARY.token_to_id("two words")
    for stop, text in (
        (["two words", "wo"], "t"),
        (["o w", "wo w"], "t"),
        (["ds", "or"], "two w"),
    ):
        assert "".join(pieces([token], stop)[0]) == text == cut("two words", stop)


def test_nothing_follows_a_stop_string():
    detokenizer = Detokenizer(OURS, ["b"])
    assert [detokenizer.push(LIBRARY.token_to_id(c)) for c in "abc"] == ["a", "", ""]
    assert detokenizer.stopped
    assert detokenizer.finish() == ""


def test_special_tokens_have_a_name_and_no_text():
    token = LIBRARY.token_to_id(SPECIAL_TOKENS[1])
    assert OURS.token_bytes(token) == b""
    assert OURS.token_name(token) == SPECIAL_TOKENS[1]
    assert OURS.encode(SPECIAL_TOKENS[1], add_special_tokens=False) == [token]


def test_a_folder_without_tokenizer_has_none(tmp_path):
    assert ByteTokenizer.from_folder(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", '{"model": 1}'])
def test_a_corrupt_tokenizer_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(EngineInputError, match=r"tokenizer\.json is corrupt"):
        ByteTokenizer.from_folder(tmp_path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    from tokenizers import models

    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EngineInputError, match="only ByteLevel"):
        ByteTokenizer.from_folder(tmp_path)


@given(tokens)
def test_special_tokens_show_their_names_where_asked(token_ids):
    detokenizer = Detokenizer(OURS, special_tokens=True)
    out = [detokenizer.push(token) for token in token_ids]
    text = "".join((*out, detokenizer.finish()))
    assert text == LIBRARY.decode(token_ids, skip_special_tokens=False)
    assert detokenizer.emitted == len(text)


@given(
    texts.filter(bool),
    st.lists(st.text(st.sampled_from("ab é€"), min_size=1, max_size=4), min_size=1),
)
def test_a_stop_string_is_kept_where_asked(text, stop):
    detokenizer = Detokenizer(OURS, stop, keep_stop=True)
    out = []
    for token in OURS.encode(text, add_special_tokens=False):
        out.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    ends = [
        end for end in range(1, len(text) + 1) if any(text[:end].endswith(each) for each in stop)
    ]
    assert "".join((*out, detokenizer.finish())) == text[: min(ends, default=len(text))]
    assert detokenizer.stopped == bool(ends)


def test_a_character_that_begins_after_a_stop_string_is_lost():
    alphabet = {OURS.token_bytes(token): token for token in range(VOCABULARY)}
    euro = [alphabet[bytes([byte])] for byte in "€".encode()]
    detokenizer = Detokenizer(OURS, ["a€"])
    out = [detokenizer.push(token) for token in (alphabet[b"b"], alphabet[b"a"], *euro[:2])]
    # Two of three bytes: it may still become the stop string.
    assert out == ["b", "", "", ""]
    assert detokenizer.finish() == "a\ufffd"
    assert not detokenizer.stopped
    detokenizer = Detokenizer(OURS, ["a"])
    assert detokenizer.push(euro[0]) == ""
    assert detokenizer.push(alphabet[b"a"]) == "\ufffd"
    assert detokenizer.stopped
    assert detokenizer.push(euro[0]) + detokenizer.finish() == ""


@pytest.mark.parametrize("keep_stop", [False, True])
def test_a_token_that_ends_the_request_is_text_where_asked(keep_stop):
    detokenizer = Detokenizer(OURS, keep_stop=keep_stop)
    assert detokenizer.push(LIBRARY.token_to_id("a")) == "a"
    assert detokenizer.push(LIBRARY.token_to_id("b"), last=True) == ("b" if keep_stop else "")
