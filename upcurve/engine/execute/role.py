"""What an engine asks of its part in serving where prompts are computed apart from outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.schedule.request import Request

if TYPE_CHECKING:
    from upcurve.engine.execute.engine import Engine


class TransferCounts(msgspec.Struct, array_like=True):
    """Prompts that were handed from one engine to another, as one of them sees it."""

    in_flight: int = 0
    """Asked for, and neither complete nor given up."""
    kept: int = 0
    """Of requests that have ended, whose memory somebody may still read or write."""
    done: int = 0
    failed: int = 0
    """Broken off by an error, a time-out or the end of the other engine."""
    cancelled: int = 0
    """Of requests that were aborted meanwhile."""
    retried: int = 0
    """Asked for once more, of another prefill worker."""
    local: int = 0
    """Prompts that a decode worker computed itself."""
    tokens: int = 0
    """Of the prompts that are done."""
    bytes: int = 0
    """That were sent, by a prefill worker."""
    seconds: float = 0.0
    """From asking to the complete transfer, summed over those that are done."""
    exposed_seconds: float = 0.0
    """From the drawn token to the complete transfer, summed: what computing did not hide."""


class Role(Protocol):
    """A part of the engine, called on its thread."""

    name: Literal["prefill", "decode"]
    counts: TransferCounts
    on_news: Callable[[], None]
    """Called, on any thread, when there is something to attend to."""

    @property
    def has_news(self) -> bool:
        """Whether `attend` would do anything."""

    @property
    def kept(self) -> int:
        """Reservations of requests that have ended."""

    def attend(self, engine: Engine) -> list[Event]:
        """Act on what others have told; called before each step is scheduled."""

    def flush(self, engine: Engine) -> None:
        """Act on what the step has scheduled; all steps before it have been computed."""

    def drawn(
        self, engine: Engine, request: Request, token: int, top: TokenLogprobs | None
    ) -> None:
        """Take the first token of a request that has a target."""

    def leave(self, request: Request, reason: str | None) -> None:
        """Know that a request is about to end; keep its memory where it cannot be freed yet."""

    def close(self) -> None:
        """End all connections."""
