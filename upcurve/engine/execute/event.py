"""What the engine tells about a request."""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "aborted", "failed"]


class TokenLogprobs(msgspec.Struct, frozen=True):
    """Natural-log probabilities at one position, from the softmax of the raw logits."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """(token id, log probability) of the most likely tokens, most likely first."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One step of one request: a new token, its end, or both.

    There is one for every token: a struct is made in a tenth of the time of a dataclass.
    """

    request_id: str
    token: int | None
    """None for an abort or a failure."""
    logprobs: TokenLogprobs | None = None
    finish: FinishReason | None = None
    """Set on the last event of a request, and only there."""
    error: str | None = None
    """What went wrong, where finish is "failed"."""
