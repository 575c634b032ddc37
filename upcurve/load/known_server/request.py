"""The body of a request -> what it asks for, or why it is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from upcurve.load.known_server.behaviour import Behaviour

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

_DEFAULT_TOKENS = 16  # of OpenAI's completions


class RefusedError(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        self.status = status
        self.message = message
        self.param = param
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    endpoint: str
    prompt_tokens: int
    prompt_digest: str
    tokens: int
    """Output tokens."""
    stream: bool
    ids: bool
    """Whether token ids are sent."""
    usage: bool
    """Whether token counts are sent at the end of a stream."""
    continuous_usage: bool
    """Whether token counts are sent with each chunk."""


def read_request(endpoint: str, body: bytes, known: Behaviour) -> Asked:
    """Return what a request asks for.

    Raises:
        RefusedError: it is no such request, or the server does not do that.
    """
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise RefusedError(400, "the body is no JSON object")
    model = asked.get("model")
    if not isinstance(model, str):
        raise RefusedError(400, "model is missing", "model")
    if model != known.model:
        raise RefusedError(404, f"the model {model} does not exist", "model")
    name = "messages" if endpoint == CHAT else "prompt"
    prompt = asked.get(name)
    prompt_tokens = _words(prompt) if endpoint == CHAT else _tokens(prompt)
    tokens = _most_tokens(asked)
    if prompt_tokens + tokens > known.context_length:
        problem = f"longer than the context of {known.context_length} tokens"
        raise RefusedError(400, problem, name)
    options = asked.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RefusedError(400, "stream_options is no object", "stream_options")
    ids = _granted(known.ids, asked, "return_token_ids")
    continuous = _granted(known.continuous_usage, options, "continuous_usage_stats")
    return Asked(
        endpoint=endpoint,
        prompt_tokens=prompt_tokens,
        prompt_digest=hashlib.sha256(orjson.dumps(prompt)).hexdigest(),
        tokens=tokens,
        stream=bool(asked.get("stream", False)),
        ids=ids,
        usage=known.usage and bool(options.get("include_usage")),
        continuous_usage=known.usage and continuous and bool(options.get("include_usage")),
    )


def _tokens(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt.split())
    # Ids are not looked at one by one: a long prompt would hold all other streams.
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return len(prompt)
    raise RefusedError(400, "prompt is no text and no list of token ids", "prompt")


def _words(messages: Any) -> int:
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "messages is no list of messages", "messages")
    words = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            texts = [part.get("text") for part in content if isinstance(part, dict)]
            content = " ".join(text for text in texts if isinstance(text, str))
        if not isinstance(content, str):
            raise RefusedError(400, "a message has no content", "messages")
        words += len(content.split())
    return words


def _most_tokens(asked: dict[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = asked.get(name)
        if value is not None:
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
            raise RefusedError(400, f"{name} is no positive integer", name)
    return _DEFAULT_TOKENS


def _granted(manner: str, fields: dict[str, Any], name: str) -> bool:
    if manner == "refused" and name in fields:
        raise RefusedError(400, f"extra field {name}", name)
    return manner == "sent" and bool(fields.get(name))
