"""What a workload is: prompts by number, each with the lengths that go with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy
import numpy.typing

Phase = Literal["measured", "warm-up", "probe"]
PHASES: tuple[Phase, ...] = ("measured", "warm-up", "probe")

Tokens = numpy.typing.NDArray[numpy.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One prompt and the lengths that go with it."""

    content: Tokens | str | list[dict[str, Any]]
    """Token ids (uint32, shape [input_tokens]), text, or messages of a chat."""
    input_tokens: int | None
    """Tokens of the prompt; None where they are not known."""
    output_tokens: int | None
    """Tokens that are asked for; None: until the model ends by itself."""


class Workload(Protocol):
    """Where prompts come from. It is sent to measuring processes, so it can be pickled.

    A prompt depends on the workload, its phase and its index alone, and is made within some 100
    microseconds: no tokenizer runs while a load does.
    """

    @property
    def isl(self) -> int:
        """Nominal input length in tokens."""

    @property
    def osl(self) -> int:
        """Nominal output length in tokens."""

    @property
    def exact_output(self) -> bool:
        """Whether each answer has to have exactly the length that is asked for."""

    @property
    def shared_prefix(self) -> bool:
        """Whether prompts share beginnings on purpose, so that a cache may serve them."""

    def prompt(self, phase: Phase, index: int) -> Prompt:
        """Return a prompt."""

    def require(self, requests: int) -> None:
        """Check that `requests` prompts of one phase can all be distinct.

        Raises:
            InputError: there are not so many.
        """

    def content_hash(self) -> str:
        """Return the SHA-256, in hex, of all that the prompts follow from."""

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it; without seed and salt, which change no speed."""

    def salted(self, salt: str) -> Self:
        """Return the same workload with prompts of its own."""


def entropy(*facts: object) -> int:
    """Return 256 bits that follow from the facts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest(), "little")


def generator(*facts: object) -> numpy.random.Generator:
    """Return a generator that follows from the facts, the same on every machine.

    The hash is the key of a counter-based generator as it is: no seeding has to spread it.
    """
    return numpy.random.Generator(numpy.random.Philox(key=entropy(*facts) % 2**128))
