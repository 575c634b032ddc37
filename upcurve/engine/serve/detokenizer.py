"""Tokens to text, one at a time: no half characters, and nothing past a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from upcurve.engine.serve.tokenizer import ByteTokenizer


class Detokenizer:
    """The text of one request as it grows.

    The pieces that `push` and `finish` return, joined, are the text of all tokens decoded at once,
    cut before (with keep_stop: after) the stop string that is complete first; of those complete at
    once it is the longest.
    Where the cut falls does not depend on how the text is split into tokens.
    """

    def __init__(
        self,
        tokenizer: ByteTokenizer,
        stop: Sequence[str] = (),
        *,
        special_tokens: bool = False,
        keep_stop: bool = False,
    ) -> None:
        """Begin with no text.

        Args:
            tokenizer: of the model.
            stop: the stop strings, none of them empty.
            special_tokens: whether special tokens add their names to the text.
            keep_stop: whether what ends the text, a stop string or token, is part of it.
        """
        self._token_bytes = tokenizer.all_bytes if special_tokens else tokenizer.token_bytes
        self._stop = tuple(stop)
        self._keep_stop = keep_stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """Whether a stop string was found; nothing comes out afterwards."""
        self.decoded = 0
        """Whole characters of the tokens so far."""
        self.emitted = 0
        """Those of them that were returned."""

    @property
    def may_cut(self) -> bool:
        """Whether there are stop strings, which may cut text of tokens that were pushed before."""
        return bool(self._stop)

    def push(self, token: int, *, last: bool = False) -> str:
        """Return the text that is certain with this token; "" while none is.

        `last` says that the token itself is why the request ends.
        """
        if last and not self._keep_stop:
            return ""
        text = self._decoder.decode(self._token_bytes(token))
        self.decoded += len(text)
        return self._emit(text)

    def finish(self) -> str:
        """Return the text that was held back, with an unfinished character as U+FFFD."""
        text = self._emit(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        self.emitted += len(held)
        return text + held

    def _emit(self, text: str) -> str:
        text = self._certain(text)
        self.emitted += len(text)
        return text

    def _certain(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        cut = self._cut(text)
        if cut is not None:
            self.stopped, self._held = True, ""
            return text[:cut]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _cut(self, text: str) -> int | None:
        found = [
            (start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0
        ]
        return min(found)[0 if self._keep_stop else 1] if found else None


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `stop`."""
    return next(
        (
            size
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        ),
        0,
    )
