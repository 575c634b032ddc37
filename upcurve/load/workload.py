"""What is asked of a server: exact lengths, distinct prompts, the same for the same seed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import orjson

from upcurve.errors import InputError

DEFAULT_VOCABULARY = (10, 1000)
"""Token ids that every real vocabulary has, past the lowest ones that may be special."""

Phase = Literal["probe", "warmup", "measured"]
_PHASES: dict[Phase, int] = {"probe": 0, "warmup": 1, "measured": 2}


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of exactly `isl` prompt tokens and `osl` output tokens, as token ids."""

    isl: int
    """Input sequence length in tokens."""
    osl: int
    """Output sequence length in tokens; the end-of-sequence token is ignored."""
    seed: int = 0
    vocabulary: tuple[int, int] = DEFAULT_VOCABULARY
    """Prompt tokens are drawn evenly from [low, high)."""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: a length is not positive, or the vocabulary is empty.
        """
        for name in ("isl", "osl"):
            if getattr(self, name) < 1:
                raise InputError(name, f"{getattr(self, name)} is not positive", "give 1 or more")
        low, high = self.vocabulary
        if not 0 <= low < high:
            raise InputError("vocabulary", f"{low}:{high} is empty", "give LOW:HIGH, e.g. 10:1000")

    def prompt(self, phase: Phase, index: int) -> list[int]:
        """Return the prompt of one request; phases and indices never share one by design."""
        key = (self.seed, _PHASES[phase], index)
        tokens = np.random.default_rng(key).integers(*self.vocabulary, size=self.isl)
        result: list[int] = tokens.tolist()
        return result

    def body(self, model: str, phase: Phase, index: int, *, token_ids: bool) -> bytes:
        """Return the JSON body of one streaming /v1/completions request."""
        body: dict[str, Any] = {
            "model": model,
            "prompt": self.prompt(phase, index),
            "max_tokens": self.osl,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if token_ids:
            body["return_token_ids"] = True
        return orjson.dumps(body)

    def content_hash(self) -> str:
        """Return the SHA-256 in hex of what determines every request."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()
