import json

import pytest
from transformers import AutoTokenizer

from upcurve.engine.errors import EngineInputError
from upcurve.engine.serve.chat import ChatTemplate

from .running import CONTEXT, MODEL

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi <b>"}]
TEMPLATE = (
    "{%- for m in messages %}\n"
    "    {%- if m.role == 'bad' %}{{ raise_exception('no') }}{% endif %}\n"
    "[{{ m.role }}] {{ m | tojson }} {{ eos_token }}\n{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<quiet>{% endif %}"
    "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    "{% if tools %}tools{% endif %}{% if add_generation_prompt %}>{% endif %}"
)


def chat(client, **options):
    options = {"model": MODEL, "messages": MESSAGES, "max_tokens": 12, "temperature": 0, **options}
    extra = {"ignore_eos": True, "return_token_ids": True, **options.pop("extra_body", {})}
    return client.chat.completions.create(extra_body=extra, **options)


@pytest.mark.parametrize("template", [None, TEMPLATE])
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}])
def test_renders_as_transformers_does(checkpoint, template, options):
    oracle = AutoTokenizer.from_pretrained(checkpoint)
    ours = ChatTemplate.from_folder(checkpoint)
    if template is not None:
        oracle.chat_template = template
        ours = ChatTemplate(template, {"eos_token": oracle.eos_token})
    expected = oracle.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True, **options
    )
    assert ours.render(MESSAGES, options) == expected


def test_a_template_of_its_own_file_comes_first(tmp_path):
    assert ChatTemplate.from_folder(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "one", "eos_token": {"content": "<e>"}}))
    assert ChatTemplate.from_folder(tmp_path).render([], {}) == "one"
    (tmp_path / "chat_template.jinja").write_text("two {{ eos_token }}")
    assert ChatTemplate.from_folder(tmp_path).render([], {}) == "two <e>"


def test_a_named_template(tmp_path):
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert ChatTemplate.from_folder(tmp_path).render([], {}) == "d"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("chat_template.jinja", "{% if %}"),
    ],
)
def test_corrupt_files_are_bad_input(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(EngineInputError, match="model: "):
        ChatTemplate.from_folder(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('not so') }}",
        "{{ 1 + 'a' }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_template_reaches_nothing_and_refuses_cleanly(source):
    with pytest.raises(ValueError, match=r"."):
        ChatTemplate(source, {}).render([], {})


def test_the_answer_is_that_of_the_templated_prompt(client, server):
    prompt = server.tokenizer.encode(server.template.render(MESSAGES, {}), add_special_tokens=False)
    answer = chat(client)
    plain = client.completions.create(
        model=MODEL,
        prompt=prompt,
        max_tokens=12,
        temperature=0,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    )
    assert answer.usage == plain.usage
    assert answer.object == "chat.completion"
    assert answer.choices[0].token_ids == plain.choices[0].token_ids
    assert answer.choices[0].message.content == plain.choices[0].text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"


def test_a_stream(client):
    whole = chat(client)
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    choices = [each.choices[0] for each in chunks]
    assert len(choices) == 12
    assert [each.delta.role for each in choices] == ["assistant"] + [None] * 11
    assert "".join(each.delta.content for each in choices) == whole.choices[0].message.content
    assert [t for each in choices for t in each.token_ids] == whole.choices[0].token_ids
    assert choices[-1].finish_reason == "length"
    assert {each.object for each in chunks} == {"chat.completion.chunk"}
    assert last.usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client, server, stream):
    answer = chat(client, logprobs=True, top_logprobs=2, stream=stream)
    parts = [each.choices[0] for each in answer] if stream else answer.choices
    entries = [entry for part in parts for entry in part.logprobs.content]
    ids = [token for part in parts for token in part.token_ids]
    assert [entry.token for entry in entries] == [server.tokenizer.token_name(t) for t in ids]
    for entry, token in zip(entries, ids, strict=True):
        raw = server.tokenizer.token_bytes(token) or entry.token.encode()
        assert bytes(entry.bytes) == raw
        assert len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)


def test_logprobs_of_chosen_tokens_only(client):
    answer = chat(client, logprobs=True)
    assert all(entry.top_logprobs == [] for entry in answer.choices[0].logprobs.content)
    assert chat(client).choices[0].logprobs is None


def test_parts_of_text_and_the_developer_role(client):
    parts = [{"type": "text", "text": "hi "}, {"type": "text", "text": "<b>"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts, "name": "me"},
    ]
    assert chat(client, messages=messages).choices == chat(client).choices


def test_all_of_the_context_where_nothing_is_said(client):
    usage = chat(client, max_tokens=None).usage
    assert usage.total_tokens == CONTEXT


def test_max_completion_tokens(client):
    assert chat(client, max_tokens=None, max_completion_tokens=3).usage.completion_tokens == 3
    assert chat(client, max_tokens=3, max_completion_tokens=3).usage.completion_tokens == 3


def test_text_after_a_stop_string_is_cut(client):
    text = chat(client).choices[0].message.content
    answer = chat(client, stop=text[3:5])
    assert answer.choices[0].message.content == text[: text.index(text[3:5])]
    assert answer.choices[0].finish_reason == "stop"
