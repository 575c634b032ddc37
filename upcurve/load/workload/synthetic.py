"""Random prompts of exact length, all distinct."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy

from upcurve.errors import InputError
from upcurve.load.workload.lengths import Exact, Lengths
from upcurve.load.workload.prompt import PHASES, Phase, Prompt, Tokens, entropy, generator

_DISTINCT = 2**40


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Beginnings that prompts have in common, as system prompts are; part of the input length."""

    length: int
    """Tokens of each."""
    count: int = 1
    """How many there are; requests take them in turn."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: one is not positive.
        """
        if min(self.length, self.count) < 1:
            mend = "give LENGTH or LENGTH:COUNT, both 1 or more"
            raise InputError("shared-prefix", f"{self.length}:{self.count}", mend)


@dataclass(frozen=True, slots=True)
class SyntheticWorkload:
    """Prompts of random token ids; lengths as asked, all prompts distinct.

    A prompt depends on (seed, salt, phase, index) alone. Distinct prompts differ within their
    first few tokens after a shared prefix, so that no prefix cache can serve one from another.
    """

    input_length: Lengths
    output_length: Lengths
    seed: int = 0
    vocabulary: tuple[int, int] = (256, 1280)
    """Token ids are drawn from low <= id < high; keep special tokens out."""
    prefix: SharedPrefix | None = None
    salt: str = field(default="", kw_only=True)
    """Keeps apart the prompts of points that are measured on one server under one seed."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: the vocabulary holds fewer than three ids, or the prefix leaves nothing.
        """
        low, high = self.vocabulary
        if low < 0 or not low + 3 <= high <= 2**31:
            mend = "give LOW:HIGH with 0 <= LOW and LOW + 3 <= HIGH"
            raise InputError("vocabulary", f"{low}:{high} is no range of token ids", mend)
        if self.prefix is not None and self.prefix.length >= self.input_length.minimum:
            problem = f"{self.prefix.length} tokens leave nothing of {self.input_length.minimum}"
            raise InputError("shared-prefix", problem, "give a shorter prefix or a larger isl")

    @classmethod
    def exact(
        cls,
        isl: int,
        osl: int,
        *,
        seed: int = 0,
        vocabulary: tuple[int, int] = (256, 1280),
        salt: str = "",
    ) -> Self:
        """Return the workload whose prompts and answers all have one length.

        Raises:
            InputError: a length is not positive, or the vocabulary is too small.
        """
        for name, length in (("isl", isl), ("osl", osl)):
            if length < 1:
                raise InputError(name, f"{length} is no length in tokens", "give 1 or more")
        return cls(Exact(isl), Exact(osl), seed, vocabulary, salt=salt)

    @property
    def isl(self) -> int:
        """Nominal input length in tokens."""
        return self.input_length.nominal

    @property
    def osl(self) -> int:
        """Nominal output length in tokens."""
        return self.output_length.nominal

    @property
    def exact_output(self) -> bool:
        """Answers have the length that is asked for."""
        return True

    @property
    def shared_prefix(self) -> bool:
        """Whether prompts share beginnings on purpose."""
        return self.prefix is not None

    @property
    def distinct_prompts(self) -> int:
        """How many distinct prompts each phase can have, at the smallest length."""
        low, high = self.vocabulary
        return int((high - low) ** self._head_length // len(PHASES))

    def require(self, requests: int) -> None:
        """Check that `requests` prompts of one phase can all be distinct.

        Raises:
            InputError: there are not so many prompts of this length over this vocabulary.
        """
        if requests > self.distinct_prompts:
            low, high = self.vocabulary
            problem = f"{requests} distinct prompts cannot be made of {self._free} of the ids"
            mend = (
                "give a larger isl (its smallest length counts), more vocabulary or fewer requests"
            )
            raise InputError("isl", f"{problem} {low}:{high}", mend)

    def prompt(self, phase: Phase, index: int) -> Prompt:
        """Return a prompt of token ids."""
        low, high = self.vocabulary
        rng = generator(self.seed, self.salt, phase, index)
        length = self.input_length.sample(rng)
        tokens = rng.integers(low, high, length, dtype=numpy.uint32)
        start = 0
        if self.prefix is not None:
            start = self.prefix.length
            tokens[:start] = self._prefix(index % self.prefix.count)
        # The head counts up from a seeded start, least digit first: distinct by construction.
        number = entropy(self.seed, self.salt) + index * len(PHASES) + PHASES.index(phase)
        # Modulo a multiple of the number of phases, so that phases stay apart where it wraps.
        number %= self.distinct_prompts * len(PHASES)
        for position in range(start, start + self._head_length):
            number, digit = divmod(number, high - low)
            tokens[position] = low + digit
        return Prompt(tokens, length, self.output_length.sample(rng))

    def content_hash(self) -> str:
        """Return the SHA-256, in hex, of the facts that all prompts follow from."""
        facts = ("upcurve.load.workload/3", self.facts(), self.seed, self.salt)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it."""
        return {
            "prompts": "random token ids, all distinct",
            "isl": self.input_length.describe(),
            "osl": self.output_length.describe(),
            "vocabulary": list(self.vocabulary),
            "shared_prefix": None
            if self.prefix is None
            else {"length": self.prefix.length, "count": self.prefix.count},
        }

    def salted(self, salt: str) -> Self:
        """Return the same workload with prompts of its own; shared prefixes stay."""
        return replace(self, salt=salt)

    @property
    def _free(self) -> int:
        """Tokens of the shortest prompt after its prefix."""
        return self.input_length.minimum - (self.prefix.length if self.prefix else 0)

    @property
    def _head_length(self) -> int:
        """Tokens that number the prompt: as many as 2^40 prompts take, where there are so many."""
        low, high = self.vocabulary
        length = 1
        while length < self._free and (high - low) ** length < _DISTINCT:
            length += 1
        return length

    def _prefix(self, which: int) -> Tokens:
        assert self.prefix is not None, "asked only where there is one"
        low, high = self.vocabulary
        rng = generator(self.seed, "shared prefix", which)
        return rng.integers(low, high, self.prefix.length, dtype=numpy.uint32)
