"""One choice of an answer: its events become text, token ids, log probabilities and an end."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.schedule.request import Request
from upcurve.engine.serve.detokenizer import Detokenizer
from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.tokenizer import ByteTokenizer


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token in the list of log probabilities."""

    token: int
    logprobs: TokenLogprobs | None
    """None for a token of an echoed prompt: what the model thought of it is not kept."""
    offset: int
    """Characters of the choice's text before it; 0 without a tokenizer."""


class Delta(msgspec.Struct):
    """What one or more events add to a choice; one is made for every token."""

    index: int
    text: str = ""
    token_ids: list[int] = []
    generated: int = 0
    """How many of the token ids are not of an echoed prompt."""
    logprobs: list[TokenEntry] = []
    """Where they were asked for; those of tokens whose text a stop string cuts are left out."""
    finish: str | None = None
    """"stop" or "length", with the last event."""

    def append(self, other: Delta) -> None:
        """Add what comes after it."""
        self.text += other.text
        self.token_ids += other.token_ids
        self.generated += other.generated
        self.logprobs += other.logprobs
        self.finish = other.finish


class Echo:
    """A prompt that its completions begin with."""

    def __init__(
        self,
        prompt: list[int],
        text: str | None,
        tokenizer: ByteTokenizer | None,
        *,
        special_tokens: bool,
        logprobs: bool,
    ) -> None:
        """Decode a prompt.

        Args:
            prompt: its token ids.
            text: as the client gave it; None where it gave token ids, which are then decoded.
            tokenizer: of the model; without one there is no text.
            special_tokens: whether decoded special tokens are seen.
            logprobs: whether its tokens are listed.
        """
        offsets = [0] * len(prompt)
        if tokenizer is not None and (text is None or logprobs):
            # In a client's own text special tokens are written out.
            shown = special_tokens or text is not None
            detokenizer = Detokenizer(tokenizer, special_tokens=shown)
            pieces = []
            for position, token in enumerate(prompt):
                offsets[position] = detokenizer.decoded
                pieces.append(detokenizer.push(token))
            text = "".join((*pieces, detokenizer.finish())) if text is None else text
        self._prompt = prompt
        self._text = text or ""
        self._entries = [
            TokenEntry(token, None, offset)
            for token, offset in zip(prompt, offsets, strict=True)
            if logprobs
        ]

    def delta(self, index: int, finish: str | None = None) -> Delta:
        """Return the beginning of a choice."""
        return Delta(index, self._text, [*self._prompt], logprobs=[*self._entries], finish=finish)


class Choice:
    """The state of one choice while its request runs."""

    def __init__(
        self,
        index: int,
        request: Request,
        detokenizer: Detokenizer | None,
        echo: Echo | None = None,
    ) -> None:
        self.index = index
        self.request = request
        self.generated = 0
        """Tokens so far."""
        self.finished = False
        self._detokenizer = detokenizer
        self._begin = None if echo is None else echo.delta(index)
        self._first_offset = 0 if self._begin is None else len(self._begin.text)
        self._held: list[TokenEntry] = []
        """Entries of tokens whose text may yet be cut."""

    def push(self, event: Event) -> Delta:
        """Return what an event adds; a stop string finishes the choice before its request ends.

        Raises:
            ApiError: 500; the request failed.
        """
        if event.finish == "failed":
            raise ApiError(500, event.error or "the request failed")
        if event.finish == "aborted":
            raise ApiError(503, "the server is stopping")
        if event.token is None:
            delta = Delta(self.index, finish=event.finish)
        else:
            self.generated += 1
            delta = Delta(self.index, "", [event.token], 1, finish=event.finish)
        if event.token is not None and event.logprobs is not None:
            decoded = 0 if self._detokenizer is None else self._detokenizer.decoded
            entry = TokenEntry(event.token, event.logprobs, self._first_offset + decoded)
            self._held.append(entry)
        if self._detokenizer is not None:
            if event.token is not None:
                stops = event.finish == "stop"
                delta.text = self._detokenizer.push(event.token, last=stops)
            if event.finish is not None:
                delta.text += self._detokenizer.finish()
            if self._detokenizer.stopped:
                delta.finish = "stop"
        self.finished = delta.finish is not None
        if self._held:
            delta.logprobs = self._certain()
        if self._begin is not None:
            begin, self._begin = self._begin, None
            begin.append(delta)
            return begin
        return delta

    def _certain(self) -> list[TokenEntry]:
        """Take the entries whose text has come out: no stop string can cut it any more."""
        text = self._detokenizer
        cuts = text is not None and text.may_cut and (text.stopped or not self.finished)
        if text is None or not cuts:
            certain, self._held = self._held, []
            return certain
        end = self._first_offset + text.emitted
        count = sum(each.offset < end for each in self._held)
        certain, self._held = self._held[:count], self._held[count:]
        return certain
