"""Questions to a server over HTTP, whole answers back: some retries, no judgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from upcurve.accuracy.task import Prompt
from upcurve.closing import Closing
from upcurve.load.answer import Answer, excerpt
from upcurve.load.connection import Exchange
from upcurve.load.pool import Pool
from upcurve.load.probe import refusal
from upcurve.load.target import Target

PAUSES_S = (0.5, 2.0, 8.0)
"""Before each further try, where a server may have been too busy or a connection broke."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one question."""

    text: str | None
    """None where there is no answer: `failure` says why."""
    prompt_tokens: int | None
    """As the server counts them."""
    output_tokens: int | None
    finish_reason: str | None
    seconds: float
    """Of the last try."""
    failure: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class _WholeAnswer(Answer):
    """An answer that comes in one piece, not as a stream."""

    text: str | None = None
    _parts: list[bytes] = field(default_factory=list)

    def take(self, reads: Sequence[tuple[int, bytes]]) -> None:
        """Keep what was read; it is decoded at the end."""
        self._parts += [data for _, data in reads]

    def finish(self, requested: int | None = None) -> None:  # noqa: ARG002 - any length is right
        """Read the JSON of a completion or a chat completion."""
        body = b"".join(self._parts)
        try:
            value = orjson.loads(body)
            choice = value["choices"][0]
            message = choice.get("message")
            text = choice["text"] if message is None else message.get("content") or ""
            if not isinstance(text, str):
                raise TypeError("an answer is text")
        except (ValueError, LookupError, TypeError, AttributeError):
            self.failure, self.detail = "malformed", f"no completion: {excerpt(body)}"
            return
        usage: Any = value.get("usage") or {}
        self.text, self.finish_reason = text, choice.get("finish_reason")
        self.prompt_tokens = usage.get("prompt_tokens")
        self.output_tokens = usage.get("completion_tokens")


class Asker(Closing):
    """Asks one server; lives in one event loop."""

    def __init__(self, target: Target, *, stop: Sequence[str], timeout_s: float) -> None:
        """Take the server.

        Args:
            target: the server, and the endpoint that is asked.
            stop: texts before which an answer ends.
            timeout_s: seconds that one try may take.
        """
        self._target, self._stop = target, list(stop)
        self._pool = Pool(target, timeout_s)
        self._head = target.head.replace(b"text/event-stream", b"application/json")

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    async def ask(self, prompt: Prompt, max_tokens: int) -> Reply:
        """Ask one question, again where the server may only have been busy."""
        return _reply(await self._patiently(prompt, max_tokens))

    async def ask_first(self, prompt: Prompt, max_tokens: int) -> Reply:
        """Ask the first of many questions: what refuses it refuses the others as well.

        Raises:
            InputError: the server refuses it, though it took a question for one token.
        """
        exchange = await self._patiently(prompt, max_tokens)
        if _refused(exchange):
            asked = f"{max_tokens:,} tokens out after a question of {len(prompt.text):,} characters"
            mend = "give fewer, or shorter prompts"
            raise refusal(self._target, asked, exchange, field="max-tokens", mend=mend)
        return _reply(exchange)

    async def try_out(self, prompt: Prompt) -> int | None:
        """Ask for one token; return how many the server counts in the prompt, where it says so.

        Raises:
            InputError: nothing answers, or the server refuses the model, the key or the prompt.
        """
        exchange = await self._once(prompt, 1)
        if exchange.failure is not None:
            asked = f"a question of {len(prompt.text):,} characters"
            mend = "correct the endpoint, the context or the number of shots"
            raise refusal(self._target, asked, exchange, field="task", mend=mend)
        return exchange.answer.prompt_tokens

    async def _patiently(self, prompt: Prompt, max_tokens: int) -> Exchange:
        for pause_s in PAUSES_S:
            exchange = await self._once(prompt, max_tokens)
            if not _worth_another_try(exchange):
                return exchange
            await asyncio.sleep(pause_s)
        return await self._once(prompt, max_tokens)

    async def _once(self, prompt: Prompt, max_tokens: int) -> Exchange:
        request: dict[str, Any] = {
            "model": self._target.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stop": self._stop,
        }
        if self._target.endpoint == "chat":
            request["messages"] = prompt.messages
        else:
            request["prompt"] = prompt.text
        body = orjson.dumps(request)
        exchange = Exchange(time.perf_counter_ns(), answer=_WholeAnswer())
        await self._pool.exchange(exchange, b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        exchange.settle()
        return exchange


def _worth_another_try(exchange: Exchange) -> bool:
    return exchange.failure in ("connect", "cut", "http_5xx") or exchange.status == 429


def _refused(exchange: Exchange) -> bool:
    return exchange.failure == "http_4xx" and exchange.status != 429


def _reply(exchange: Exchange) -> Reply:
    answer = exchange.answer
    assert isinstance(answer, _WholeAnswer), "as it was asked"
    return Reply(
        None if exchange.failure else answer.text,
        answer.prompt_tokens,
        answer.output_tokens,
        answer.finish_reason,
        (exchange.ended_ns - exchange.sent_ns) / 1e9,
        exchange.failure,
        exchange.detail,
    )
