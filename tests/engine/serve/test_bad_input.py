import json
import shutil

import pytest

from . import patient
from .running import CONTEXT, MODEL, Running

COMPLETION = {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 2}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def post(server, path, body, **options):
    if isinstance(body, bytes):
        return patient.post(f"{server.url}{path}", content=body, **options)
    return patient.post(f"{server.url}{path}", json=body, **options)


def check(answer, status, param, *words):
    """The answer has OpenAI's error shape, names the field, and says the words."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert "\n" not in error["message"]
    for word in words:
        assert word in error["message"]


BOTH = [
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 129}, "n", "less than or equal to 128"),
    ({"n": "2"}, "n", "integer"),
    ({"min_tokens": 3}, "min_tokens", "ignore_eos"),
    ({"skip_special_tokens": "no"}, "skip_special_tokens", "boolean"),
    ({"tools": [{"type": "function"}]}, "tools", "leave it out"),
    ({"tool_choice": "required"}, "tool_choice", "leave it out"),
    ({"response_format": {"type": "json_object"}}, "response_format", "text"),
    ({"presence_penalty": 0.5}, "presence_penalty", "use 0"),
    ({"frequency_penalty": -1}, "frequency_penalty", "use 0"),
    ({"repetition_penalty": 1.1}, "repetition_penalty", "use 1"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "leave it out"),
    ({"min_p": 0.1}, "min_p", "use 0"),
    ({"no_such": 1}, "no_such", "unknown parameter"),
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
    ({"top_k": -2}, "top_k", "greater"),
    ({"top_k": 1.5}, "top_k", "integer"),
    ({"seed": 2**63}, "seed", "less than"),
    ({"seed": "x"}, "seed", "integer"),
    ({"max_tokens": -1}, "max_tokens", "greater"),
    ({"max_tokens": True}, "max_tokens", "integer"),
    ({"stop": [""]}, "stop.0", "at least 1 character"),
    ({"stop": 5}, "stop", "list"),
    ({"stop": ["a"] * 17}, "stop", "16"),
    ({"stream": "yes"}, "stream", "boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "set stream"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown parameter"),
    ({"ignore_eos": 1}, "ignore_eos", "boolean"),
    ({"model": 5}, "model", "string"),
    ({"max_tokens": CONTEXT}, None, f"max_tokens {CONTEXT}", f"context length of {CONTEXT}"),
]
ONLY_COMPLETION = [
    ({"echo": 1}, "echo", "boolean"),
    ({"best_of": 2}, "best_of", "2 is not n"),
    ({"best_of": 2, "n": 3}, "best_of", "2 is not n"),
    ({"max_tokens": 0}, "max_tokens", "set echo"),
    ({"suffix": "x"}, "suffix", "leave it out"),
    ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
    ({"logprobs": True}, "logprobs", "integer"),
    ({"messages": []}, "messages", "unknown parameter"),
    ({"prompt": ""}, "prompt", "not empty"),
    ({"prompt": []}, "prompt", "not empty"),
    ({"prompt": [[]]}, "prompt", "not empty"),
    ({"prompt": ["a", [1]]}, "prompt", "neither"),
    ({"prompt": [1, "a"]}, "prompt", "neither"),
    ({"prompt": [1.5]}, "prompt", "neither"),
    ({"prompt": {"a": 1}}, "prompt", "neither"),
    ({"prompt": ["a"] * 1025}, "prompt", "1024 choices at most"),
    ({"prompt": ["a"] * 9, "n": 128}, "prompt", "9 prompts with n 128"),
    ({"prompt": [1] * (CONTEXT + 1), "max_tokens": 0, "echo": True}, "prompt", "context length"),
    ({"prompt": [512]}, "prompt", "0..511"),
    ({"prompt": [-1]}, "prompt", "0..511"),
    ({"prompt": [10**30]}, "prompt", "neither"),
    ({"prompt": [1] * CONTEXT}, "prompt", f"{CONTEXT} tokens", f"context length of {CONTEXT}"),
    ({"prompt": "a b c " * 200}, "prompt", f"context length of {CONTEXT}"),
]
ONLY_CHAT = [
    ({"echo": True}, "echo", "use false"),
    ({"best_of": 2}, "best_of", "use 1"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": "hi"}, "messages", "list"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "missing"),
    ({"messages": [{"role": "robot", "content": ""}]}, "messages.0.role", "'user'"),
    ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role", "'user'"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "no text"),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
        "messages",
        "not supported",
    ),
    ({"messages": [{"role": "user", "content": "ab " * 500}]}, "messages", "context length"),
    ({"logprobs": 1}, "logprobs", "boolean"),
    ({"top_logprobs": 2}, "top_logprobs", "set logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    ({"max_completion_tokens": 5}, "max_tokens", "give one of them"),
    ({"prompt": "a"}, "prompt", "unknown parameter"),
]


@pytest.mark.parametrize(("change", "param", "words"), [(c, p, w) for c, p, *w in BOTH])
def test_both(server, change, param, words):
    for path, body, own in (
        ("/v1/completions", COMPLETION, "prompt"),
        ("/v1/chat/completions", CHAT, "messages"),
    ):
        check(post(server, path, {**body, **change}), 400, param or own, *words)


@pytest.mark.parametrize(("change", "param", "words"), [(c, p, w) for c, p, *w in ONLY_COMPLETION])
def test_completions(server, change, param, words):
    check(post(server, "/v1/completions", {**COMPLETION, **change}), 400, param, *words)


@pytest.mark.parametrize(("change", "param", "words"), [(c, p, w) for c, p, *w in ONLY_CHAT])
def test_chat(server, change, param, words):
    check(post(server, "/v1/chat/completions", {**CHAT, **change}), 400, param, *words)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[]", b"5", b'"text"', b'{"model": NaN}', b"[" * 100_000]
)
def test_malformed_bodies(server, path, body):
    answer = post(server, path, body)
    check(answer, 400, "body")


def test_missing_fields_are_named(server):
    for name in ("model", "prompt"):
        body = {key: value for key, value in COMPLETION.items() if key != name}
        check(post(server, "/v1/completions", body), 400, name, "missing")


def test_a_huge_body(server):
    body = json.dumps({**COMPLETION, "prompt": "a" * (17 * 2**20)}).encode()
    answer = post(server, "/v1/completions", body)
    check(answer, 413, None, "send less")
    assert answer.headers["connection"] == "close"


def test_a_wrong_model(server):
    for path, body in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
        check(post(server, path, {**body, "model": "other"}), 404, "model", "'other'", MODEL)
    check(patient.get(f"{server.url}/v1/models/a/b"), 404, "model", "'a/b'")


def test_unknown_paths_and_methods(server):
    check(patient.get(f"{server.url}/v2/completions"), 404, None, "GET /v2/completions")
    check(patient.get(f"{server.url}/v1/completions"), 405, None)


def test_harmless_and_neutral_parameters_are_accepted(server):
    extra = {
        "user": "me",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "n": 1,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "tools": None,
        "response_format": {"type": "text"},
        "stop": None,
        "seed": -1,
    }
    assert post(server, "/v1/completions", {**COMPLETION, **extra}).status_code == 200
    assert post(server, "/v1/chat/completions", {**CHAT, **extra}).status_code == 200


def test_a_folder_without_tokenizer_takes_token_ids_only(checkpoint, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with Running(folder) as bare:
        text = {**COMPLETION, "prompt": "hi"}
        check(post(bare, "/v1/completions", text), 400, "prompt", "give token ids")
        check(post(bare, "/v1/chat/completions", CHAT), 400, "messages", "tokenizer.json")
        stop = {**COMPLETION, "stop": "x"}
        check(post(bare, "/v1/completions", stop), 400, "stop", "stop_token_ids")
        ids = {**COMPLETION, "return_token_ids": True, "logprobs": 1, "ignore_eos": True}
        choice = post(bare, "/v1/completions", ids).json()["choices"][0]
        assert choice["text"] == ""
        assert choice["logprobs"]["tokens"] == [f"token_id:{t}" for t in choice["token_ids"]]
        with bare.client() as client:
            stream = client.completions.create(
                model=MODEL,
                prompt=[1, 2],
                max_tokens=3,
                stream=True,
                extra_body={"return_token_ids": True, "ignore_eos": True},
            )
            chunks = [chunk.choices[0] for chunk in stream]
        assert [each.text for each in chunks] == ["", "", ""]
        assert [len(each.token_ids) for each in chunks] == [1, 1, 1]


def test_a_folder_without_chat_template(checkpoint, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("tokenizer_config*"))
    with Running(folder) as plain:
        check(post(plain, "/v1/chat/completions", CHAT), 400, "messages", "chat_template.jinja")
        assert post(plain, "/v1/completions", COMPLETION).status_code == 200


def test_an_api_key(checkpoint):
    with Running(checkpoint, api_key="sécret") as closed:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sécret2"}):
            raw = {key: value.encode() for key, value in header.items()}
            for answer in (
                post(closed, "/v1/completions", COMPLETION, headers=raw),
                post(closed, "/v1/completions", b"{", headers=raw),
                patient.get(f"{closed.url}/v1/models", headers=raw),
            ):
                check(answer, 401, None, "api key", "Bearer")
        good = {"Authorization": "Bearer sécret".encode()}
        assert post(closed, "/v1/completions", COMPLETION, headers=good).status_code == 200
        for path in ("/health", "/metrics"):
            assert patient.get(f"{closed.url}{path}").status_code == 200
