"""What counts of a server-sent event, of completions and of chat completions."""

from __future__ import annotations

from typing import Any

import msgspec


class Delta(msgspec.Struct, gc=False):
    """What a chat answer grows by."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers that an event carries a part of."""

    text: str | None = None
    delta: Delta | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class Details(msgspec.Struct, gc=False):
    """Where input tokens came from."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """The server's own count; a negative one is refused."""

    prompt_tokens: int
    completion_tokens: int | None = None  # left out while it is 0 by some servers
    prompt_tokens_details: Details | None = None

    def __post_init__(self) -> None:
        cached = self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens
        if min(self.prompt_tokens, self.completion_tokens or 0, cached or 0) < 0:
            raise ValueError("a negative number of tokens")


class Event(msgspec.Struct, gc=False):
    """What counts of one server-sent event, of completions and of chat completions."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class Plain(msgspec.Struct, gc=False):
    """An event with one choice, and nothing about usage or an error."""

    choices: tuple[Choice]
    usage: None = None
    error: None = None


decode_one = msgspec.json.Decoder(Event).decode
decode_many = msgspec.json.Decoder(list[Event]).decode
decode_plain = msgspec.json.Decoder(list[Plain]).decode
