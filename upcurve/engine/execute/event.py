"""What the engine tells about a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "aborted", "failed"]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probabilities at one position, from the softmax of the raw logits."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """(token id, log probability) of the most likely tokens, most likely first."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step of one request: a new token, its end, or both."""

    request_id: str
    token: int | None
    """None for an abort or a failure."""
    logprobs: TokenLogprobs | None = None
    finish: FinishReason | None = None
    """Set on the last event of a request, and only there."""
    error: str | None = None
    """What went wrong, where finish is "failed"."""
