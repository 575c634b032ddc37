"""The bytes of answers: heads, events of a stream, whole bodies."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

import orjson

from upcurve.load.known_server.behaviour import Behaviour
from upcurve.load.known_server.request import CHAT, Asked, RefusedError

_WORD = " token"
_KEPT = 2**16  # chunks that are kept ready-made

DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"
"""The last chunk of an answer, by HTTP."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def framed(event: bytes) -> bytes:
    """Return an event as a chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def event(value: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: %b\n\n" % orjson.dumps(value)


def stream_head(*, keep: bool) -> bytes:
    """Return the head of an answer in events."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n%b\r\n" % _connection(keep)
    )


def whole_answer(
    status: int, body: bytes, *, keep: bool, kind: bytes = b"application/json"
) -> bytes:
    """Return an answer with a length."""
    reason = HTTPStatus(status).phrase.encode()
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
    return head % (status, reason, kind, len(body), _connection(keep)) + body


def error_body(refused: RefusedError) -> bytes:
    """Return an error as OpenAI writes it."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    default = "server_error" if refused.status >= 500 else "invalid_request_error"
    error = {
        "message": refused.message,
        "type": kinds.get(refused.status, default),
        "param": refused.param,
        "code": refused.status,
    }
    return orjson.dumps({"error": error})


def _connection(keep: bool) -> bytes:
    return b"" if keep else b"Connection: close\r\n"


class Events:
    """The chunks of all answers that look alike; each is made once."""

    def __init__(self, asked: Asked, known: Behaviour) -> None:
        self.ready: dict[int, bytes] = {}
        """Position of the first token -> a chunk of the usual size that is not the last."""
        self._chat = asked.endpoint == CHAT
        self._ids = asked.ids
        self._counted = asked.prompt_tokens if asked.continuous_usage else None
        self._known = known
        self._head: dict[str, Any] = {
            "id": "chatcmpl-known" if self._chat else "cmpl-known",
            "object": "chat.completion" if self._chat else "text_completion",
            "created": int(time.time()),
            "model": known.model,
        }
        self._event_head = self._head | ({"object": "chat.completion.chunk"} if self._chat else {})

    def middle(self, position: int) -> bytes:
        """Return a chunk of the usual size that is not the last, and keep it."""
        chunk = self.chunk(position, self._known.tokens_per_chunk, None)
        if len(self.ready) < _KEPT:
            self.ready[position] = chunk
        return chunk

    def chunk(self, position: int, count: int, finish: str | None) -> bytes:
        """Return `count` tokens from `position` on as chunks of HTTP."""
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["delta"] = self._texts(position, count)
        else:
            choice["text"] = _WORD * count
        choice["finish_reason"] = finish
        if self._ids:
            choice["token_ids"] = list(range(position, position + count))
        chunk = framed(self._event(choice, position + count))
        if self._chat and position == 0:
            delta = {"role": "assistant", "content": ""}
            chunk = (
                framed(self._event({"index": 0, "delta": delta, "finish_reason": None}, 0)) + chunk
            )
        return chunk

    def usage(self, prompt_tokens: int, tokens: int) -> bytes:
        """Return the event that counts the tokens."""
        counts = self._usage(prompt_tokens, tokens)
        return framed(event({**self._event_head, "choices": [], "usage": counts}))

    def whole(self, prompt_tokens: int, tokens: int, finish: str | None) -> bytes:
        """Return the body of an answer that is no stream."""
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": ""} | self._texts(0, tokens)
        else:
            choice["text"] = _WORD * tokens
        choice["finish_reason"] = finish
        if self._ids:
            choice["token_ids"] = list(range(tokens))
        counts = {"usage": self._usage(prompt_tokens, tokens)} if self._known.usage else {}
        return orjson.dumps(self._head | {"choices": [choice]} | counts)

    def _event(self, choice: dict[str, Any], tokens: int) -> bytes:
        value = self._event_head | {"choices": [choice]}
        if self._counted is not None:
            value |= {"usage": self._usage(self._counted, tokens)}
        return event(value)

    def _texts(self, position: int, count: int) -> dict[str, str]:
        reasoning = min(count, max(0, self._known.reasoning_tokens - position))
        texts = {"reasoning_content": _WORD * reasoning} if reasoning else {}
        return texts | ({"content": _WORD * (count - reasoning)} if count > reasoning else {})

    def _usage(self, prompt_tokens: int, tokens: int) -> dict[str, Any]:
        known = self._known
        prompt = prompt_tokens + known.extra_prompt_tokens
        reasoning = min(tokens, known.reasoning_tokens) if self._chat else 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
            "prompt_tokens_details": {"cached_tokens": round(known.cached_share * prompt)},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
