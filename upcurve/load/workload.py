"""The workload: which prompts are sent, and how many tokens are asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy
import numpy.typing

from upcurve.errors import InputError

Phase = Literal["measured", "warm-up", "probe"]
_PHASES: tuple[Phase, ...] = ("measured", "warm-up", "probe")

Tokens = numpy.typing.NDArray[numpy.uint32]


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts of exactly `isl` random token ids, `osl` tokens asked for, all prompts distinct.

    A prompt depends on (seed, salt, phase, index) alone. Distinct prompts differ within their
    first few tokens, so that no prefix cache can serve one from another.
    """

    isl: int
    """Input length in tokens."""
    osl: int
    """Output length in tokens."""
    seed: int = 0
    vocabulary: tuple[int, int] = (256, 1280)
    """Token ids are drawn from low <= id < high; keep special tokens out."""
    salt: str = ""
    """Keeps apart the prompts of points that are measured on one server under one seed."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: a length is not positive or the vocabulary holds fewer than three ids.
        """
        for name, length in (("isl", self.isl), ("osl", self.osl)):
            if length < 1:
                raise InputError(name, f"{length} is no length in tokens", "give 1 or more")
        low, high = self.vocabulary
        if low < 0 or not low + 3 <= high <= 2**31:
            mend = "give LOW:HIGH with 0 <= LOW and LOW + 3 <= HIGH"
            raise InputError("vocabulary", f"{low}:{high} is no range of token ids", mend)

    @property
    def distinct_prompts(self) -> int:
        """How many distinct prompts each phase can have."""
        low, high = self.vocabulary
        return int((high - low) ** self._head_length // len(_PHASES))

    def require(self, requests: int) -> None:
        """Check that `requests` prompts of one phase can all be distinct.

        Raises:
            InputError: there are not so many prompts of this length over this vocabulary.
        """
        if requests > self.distinct_prompts:
            low, high = self.vocabulary
            problem = f"{requests} distinct prompts cannot be made of {self.isl} of the ids"
            mend = "give a larger isl, a wider vocabulary or fewer requests"
            raise InputError("isl", f"{problem} {low}:{high}", mend)

    def prompt(self, phase: Phase, index: int) -> Tokens:
        """Return a prompt: token ids, shape [isl], uint32."""
        low, high = self.vocabulary
        width = high - low
        rng = numpy.random.default_rng(_entropy(self.seed, self.salt, phase, index))
        tokens = rng.integers(low, high, self.isl, dtype=numpy.uint32)
        # The head counts up from a seeded start, least digit first: distinct by construction.
        start = _entropy(self.seed, self.salt)
        number = start + index * len(_PHASES) + _PHASES.index(phase)
        # Modulo a multiple of the number of phases, so that phases stay apart where it wraps.
        number %= self.distinct_prompts * len(_PHASES)
        for position in range(self._head_length):
            number, digit = divmod(number, width)
            tokens[position] = low + digit
        return tokens

    def content_hash(self) -> str:
        """Return the SHA-256, in hex, of the facts that all prompts follow from."""
        facts = ("upcurve.load.workload/1", self.isl, self.osl, self.seed, self.vocabulary)
        return hashlib.sha256(repr((*facts, self.salt)).encode()).hexdigest()

    @property
    def _head_length(self) -> int:
        """Tokens that number the prompt: as many as 2^40 prompts take, where isl has them."""
        low, high = self.vocabulary
        length = 1
        while length < self.isl and (high - low) ** length < 2**40:
            length += 1
        return length


def _entropy(*facts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest(), "little")
