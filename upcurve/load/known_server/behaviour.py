"""What the server is told to do: its timing, its manners, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FaultKind = Literal[
    "http_429",
    "http_500",
    "error_event",
    "cut",
    "no_done",
    "garbage",
    "empty",
    "short",
    "long",
    "stall",
    "burst",
]
"""What goes wrong: an error status; after half of the tokens an error inside the stream, a broken
connection, an orderly end without [DONE], an event that is no JSON; an answer without tokens; half
of the tokens, or half as many again, as if they were all; a pause after half of the tokens; all
chunks in one write at the end, as a buffering proxy has it."""

FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)

Manner = Literal["sent", "ignored", "refused"]
"""What becomes of a request for something; refused: answered with 400, as an unknown field."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with every `every`-th request, in the order of arrival."""

    kind: FaultKind
    every: int
    stall_ms: float = 1000.0
    """Length of a stall."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the server does, to the millisecond."""

    first_ms: float = 100.0
    """From the arrival of a request, or from its slot, to its first token."""
    interval_ms: float = 20.0
    """From one token to the next."""
    tokens_per_chunk: int = 1
    """Tokens that are sent together, when the last of them is there."""
    faults: tuple[Fault, ...] = ()
    """The first one that hits a request is what happens to it."""
    model: str = "known"
    api_key: str | None = None
    context_length: int = 2**20
    ids: Manner = "sent"
    """What becomes of `return_token_ids`."""
    usage: bool = True
    """Whether there are token counts for those who ask with `stream_options`."""
    extra_prompt_tokens: int = 0
    """What the server adds to every prompt, as a begin-of-sequence token."""
    cached_share: float = 0.0
    """Share of the prompt that usage says came from the prefix cache."""
    jitter_ms: float = 0.0
    """Each token comes later or earlier by up to this, uniformly, and all after it with it."""
    seed: int = 0
    """Of the jitter: the n-th request has the same one in every run."""
    slots: int | None = None
    """Requests that are computed at once; the others wait in the order of arrival."""
    per_stream_ms: float = 0.0
    """Added to `interval_ms` for each other request that is computed when one begins."""
    continuous_usage: Manner = "sent"
    """What becomes of `stream_options.continuous_usage_stats`."""
    reasoning_tokens: int = 0
    """First tokens of a chat answer that come as `reasoning_content`."""
