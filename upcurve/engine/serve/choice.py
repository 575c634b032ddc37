"""One choice of an answer: its events become text, token ids, log probabilities and an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.schedule.request import Request
from upcurve.engine.serve.detokenizer import Detokenizer
from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.tokenizer import ByteTokenizer


@dataclass(slots=True)
class Delta:
    """What one or more events add to a choice."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[tuple[int, TokenLogprobs]] = field(default_factory=list)
    """(token id, its log probabilities), where they were asked for."""
    finish: str | None = None
    """"stop" or "length", with the last event."""

    def append(self, other: Delta) -> None:
        """Add what comes after it."""
        self.text += other.text
        self.token_ids += other.token_ids
        self.logprobs += other.logprobs
        self.finish = other.finish


class Choice:
    """The state of one choice while its request runs."""

    def __init__(
        self, index: int, request: Request, tokenizer: ByteTokenizer | None, stop: Sequence[str]
    ) -> None:
        self.index = index
        self.request = request
        self.generated = 0
        """Tokens so far."""
        self.finished = False
        self._detokenizer = None if tokenizer is None else Detokenizer(tokenizer, stop)

    def push(self, event: Event) -> Delta:
        """Return what an event adds; a stop string finishes the choice before its request ends.

        Raises:
            ApiError: 500; the request failed.
        """
        if event.finish == "failed":
            raise ApiError(500, event.error or "the request failed")
        if event.finish == "aborted":
            raise ApiError(503, "the server is stopping")
        delta = Delta(self.index, finish=event.finish)
        if event.token is not None:
            self.generated += 1
            delta.token_ids.append(event.token)
            if event.logprobs is not None:
                delta.logprobs.append((event.token, event.logprobs))
        if self._detokenizer is not None:
            if event.token is not None:
                delta.text = self._detokenizer.push(event.token)
            if event.finish is not None:
                delta.text += self._detokenizer.finish()
            if self._detokenizer.stopped:
                delta.finish = "stop"
        self.finished = delta.finish is not None
        return delta
