"""OpenAI's response objects, written without a model class: one is written for every token."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import orjson

from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.serve.choice import Choice, Delta
from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.tokenizer import ByteTokenizer

DONE = b"data: [DONE]\n\n"


class Answer(ABC):
    """Writes the answer to one call, whole or as server-sent events."""

    prefix: str
    kind: str
    chunk_kind: str

    def __init__(
        self,
        model: str,
        tokenizer: ByteTokenizer | None,
        *,
        prompt_tokens: int,
        token_ids: bool,
        logprobs: bool,
        usage_in_stream: bool,
        continuous_usage: bool = False,
    ) -> None:
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._head = {"id": self.id, "created": int(time.time()), "model": model}
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._token_ids = token_ids
        self._logprobs = logprobs
        self._usage_in_stream = usage_in_stream
        self._continuous_usage = continuous_usage
        self._streamed = 0
        # A chunk is this, one choice, and the tail.
        head = orjson.dumps({**self._head, "object": self.chunk_kind})
        self._chunk_head = b"data: " + head[:-1] + b',"choices":['
        self._chunk_tail = b'],"usage":null}\n\n' if usage_in_stream else b"]}\n\n"

    def whole(self, deltas: Sequence[Delta], choices: Sequence[Choice]) -> bytes:
        """Return the answer as one object; `deltas` has all of each choice."""
        return orjson.dumps(
            {
                **self._head,
                "object": self.kind,
                "choices": [self._choice(each) for each in deltas],
                "usage": self._usage(sum(each.generated for each in choices)),
            }
        )

    def chunk(self, delta: Delta) -> bytes:
        """Return one server-sent event."""
        tail = self._chunk_tail
        if self._continuous_usage:
            self._streamed += delta.generated
            so_far = orjson.dumps(self._usage(self._streamed))
            tail = b'],"usage":' + so_far + b"}\n\n"
        plain = delta.finish is None and not self._logprobs
        choice = self._plain_choice(delta) if plain else orjson.dumps(self._chunk_choice(delta))
        return self._chunk_head + choice + tail

    def _plain_choice(self, delta: Delta) -> bytes:
        """Return a choice of a stream that has neither an end nor log probabilities, as JSON."""
        return orjson.dumps(self._chunk_choice(delta))

    def end(self, choices: Sequence[Choice]) -> bytes:
        """Return the last server-sent events."""
        if not self._usage_in_stream:
            return DONE
        last = {
            **self._head,
            "object": self.chunk_kind,
            "choices": [],
            "usage": self._usage(sum(each.generated for each in choices)),
        }
        return event(last) + DONE

    def _usage(self, generated: int) -> dict[str, int]:
        # A prompt with several choices counts once, as OpenAI has it.
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self._prompt_tokens + generated,
        }

    def _common(self, delta: Delta, logprobs: Any) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": delta.index,
            "logprobs": logprobs if self._logprobs else None,
            "finish_reason": delta.finish,
        }
        if self._token_ids:
            choice["token_ids"] = delta.token_ids
        return choice

    def _name(self, token: int) -> str:
        # Without a tokenizer a token is called by its number, as vLLM writes it.
        return f"token_id:{token}" if self._tokenizer is None else self._tokenizer.token_name(token)

    def _bytes(self, token: int) -> bytes:
        return b"" if self._tokenizer is None else self._tokenizer.token_bytes(token)

    @abstractmethod
    def _choice(self, delta: Delta) -> dict[str, Any]:
        """Return a choice of the whole answer."""

    @abstractmethod
    def _chunk_choice(self, delta: Delta) -> dict[str, Any]:
        """Return a choice of a stream."""


class CompletionAnswer(Answer):
    """The answer of /v1/completions."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def _choice(self, delta: Delta) -> dict[str, Any]:
        logprobs = self._token_logprobs(delta) if self._logprobs else None
        return {"text": delta.text, **self._common(delta, logprobs)}

    _chunk_choice = _choice

    def _plain_choice(self, delta: Delta) -> bytes:
        # Nearly every token takes this way: half the time of a dictionary's.
        text = orjson.dumps(delta.text)
        if not self._token_ids:
            form = b'{"text":%b,"index":%d,"logprobs":null,"finish_reason":null}'
            return form % (text, delta.index)
        form = b'{"text":%b,"index":%d,"logprobs":null,"finish_reason":null,"token_ids":%b}'
        return form % (text, delta.index, orjson.dumps(delta.token_ids))

    def _token_logprobs(self, delta: Delta) -> dict[str, Any]:
        values = [each.logprobs for each in delta.logprobs]
        return {
            "tokens": [self._name(each.token) for each in delta.logprobs],
            "token_logprobs": [None if each is None else each.chosen for each in values],
            "top_logprobs": [
                None if each is None else {self._name(token): value for token, value in each.top}
                for each in values
            ],
            "text_offset": [each.offset for each in delta.logprobs],
        }


class ChatAnswer(Answer):
    """The answer of /v1/chat/completions."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._begun: set[int] = set()

    def _choice(self, delta: Delta) -> dict[str, Any]:
        message = {"role": "assistant", "content": delta.text, "refusal": None}
        return {"message": message, **self._common(delta, self._content(delta))}

    def _chunk_choice(self, delta: Delta) -> dict[str, Any]:
        part = {"content": delta.text}
        # The role comes with the first token, not before it: the first chunk is the first token.
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            part = {"role": "assistant", **part}
        return {"delta": part, **self._common(delta, self._content(delta))}

    def _content(self, delta: Delta) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {
            "content": [
                {
                    **self._entry(each.token, each.logprobs.chosen),
                    "top_logprobs": self._top(each.logprobs),
                }
                for each in delta.logprobs
                if each.logprobs is not None
            ],
            "refusal": None,
        }

    def _top(self, logprobs: TokenLogprobs) -> list[dict[str, Any]]:
        return [self._entry(token, value) for token, value in logprobs.top]

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        name = self._name(token)
        raw = self._bytes(token) or name.encode("utf-8")
        return {"token": name, "logprob": logprob, "bytes": list(raw)}


def event(value: Any) -> bytes:
    """Return one server-sent event with a JSON value."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """Return the server-sent event of an error in the middle of a stream."""
    return event(error.body())
