"""Tokens to text, one at a time: no half characters, and nothing past a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from upcurve.engine.serve.tokenizer import ByteTokenizer


class Detokenizer:
    """The text of one request as it grows.

    The pieces that `push` and `finish` return, joined, are the text of all tokens decoded at once,
    cut before the stop string that is complete first (of those complete at once: the longest).
    Where the cut falls does not depend on how the text is split into tokens.
    """

    def __init__(self, tokenizer: ByteTokenizer, stop: Sequence[str] = ()) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """Whether a stop string was found; nothing comes out afterwards."""

    def push(self, token: int) -> str:
        """Return the text that is certain with this token; "" while none is."""
        return self._emit(self._decoder.decode(self._token_bytes(token)))

    def finish(self) -> str:
        """Return the text that was held back, with an unfinished character as U+FFFD."""
        text = self._emit(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _emit(self, text: str) -> str:
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
        return min(found)[1] if found else None


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
