"""One answer as it was read: bytes and times in; tokens, usage and failure out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from upcurve.load.trace import Failure

_DETAIL_LENGTH = 300


@dataclass(slots=True)
class Answer:
    """The content of one streamed completion, fed read by read.

    An event is stamped with the time of the read that completed it.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    failure: Failure | None = None
    detail: str | None = None
    done: bool = False
    _rest: bytes = b""
    _with_ids: list[tuple[int, int]] = field(default_factory=list)
    _with_text: list[int] = field(default_factory=list)

    def feed(self, time_ns: int, data: bytes) -> None:
        """Take what one read returned."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self.failure is None and not self.done:
                self._take(time_ns, line.rstrip(b"\r"))

    def finish(self, osl: int | None = None) -> None:
        """Judge an answer that the server ended by itself.

        Args:
            osl: output tokens that were asked for. An answer of another length is a failure where
                the length is known, by usage or token ids; None: any length is right.
        """
        if self.failure is None and not self.done:
            if self._rest.strip() and not self._rest.startswith(b"data:"):
                self._fail("malformed", f"no event stream: {excerpt(self._rest)}")
            else:
                self._fail("cut", "the stream ended without [DONE]")
        if self.failure is None and not (self._with_ids or self._with_text):
            self._fail("malformed", "the answer has no token")
        length = self.counted_tokens if self.output_tokens is None else self.output_tokens
        if self.failure is None and osl is not None and length is not None and length != osl:
            kind: Failure = "short_output" if length < osl else "long_output"
            self._fail(kind, f"{length} tokens, {osl} were asked for")

    @property
    def counted_tokens(self) -> int | None:
        """Tokens by their ids; None where no ids came."""
        return sum(tokens for _, tokens in self._with_ids) if self._with_ids else None

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Times in ns and tokens of the events with content.

        Without token ids the server's total is spread evenly over the events with text; without
        a total, each is one token.
        """
        if self._with_ids:
            times, tokens = zip(*self._with_ids, strict=True)
            return times, tokens
        count = len(self._with_text)
        total = count if self.output_tokens is None else self.output_tokens
        return tuple(self._with_text), tuple(_spread(total, count))

    def _take(self, time_ns: int, line: bytes) -> None:
        if not line or line.startswith((b":", b"event:", b"id:", b"retry:")):
            return
        if not line.startswith(b"data:"):
            self._fail("malformed", f"no event stream: {excerpt(line)}")
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        try:
            self._event(time_ns, orjson.loads(data))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            self._fail("malformed", f"no completion: {excerpt(data)}")

    def _event(self, time_ns: int, event: dict[str, Any]) -> None:
        if event.get("error"):
            error = event["error"]
            message = error.get("message") if isinstance(error, dict) else error
            self._fail("error_event", excerpt(str(message).encode()))
            return
        usage = event.get("usage")
        if usage:
            self.prompt_tokens = _count(usage["prompt_tokens"])
            self.output_tokens = _count(usage["completion_tokens"])
            details = usage.get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens")
            self.cached_tokens = None if cached is None else _count(cached)
        for choice in event["choices"]:
            identities = choice.get("token_ids")
            if identities:
                self._with_ids.append((time_ns, len(identities)))
            if choice["text"]:
                self._with_text.append(time_ns)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _fail(self, failure: Failure, detail: str) -> None:
        self.failure, self.detail = failure, detail


def excerpt(data: bytes) -> str:
    """Return the start of what a server said, on one line of printable characters."""
    text = " ".join(data[: 4 * _DETAIL_LENGTH].decode(errors="replace").split())
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= _DETAIL_LENGTH else text[: _DETAIL_LENGTH - 3] + "..."


def error_message(body: bytes) -> str:
    """Return the message of an error answer, in OpenAI's form or FastAPI's, else its start."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return excerpt(body)
    for path in (("error", "message"), ("message",), ("detail",), ("error",)):
        found = _at(value, path)
        if isinstance(found, str):
            return excerpt(found.encode())
    return excerpt(body)


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _spread(total: int, parts: int) -> Iterator[int]:
    """Yield `parts` whole numbers, as equal as can be and the first the largest, of sum `total`."""
    for part in range(parts):
        yield -(-(part + 1) * total // parts) + -part * total // parts
