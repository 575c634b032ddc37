"""A request's life: what was asked for, which phase it is in, and its one terminal event."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from upcurve.engine.memory.reservation import Reservation


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How the tokens of one request are drawn, and when it ends."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy: the most likely token, the lowest id of equal ones."""
    top_k: int = 0
    """Draw among the k most likely tokens; 0 means all."""
    top_p: float = 1.0
    """Draw among the fewest most likely tokens that hold this much probability."""
    seed: int | None = None
    """With a seed a request's tokens do not depend on its company or on the time."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Go on to max_tokens past the model's end-of-sequence token."""
    logprobs: int | None = None
    """How many of the most likely tokens to report beside each chosen one; None reports nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where another engine wants a prompt's keys, values and states."""

    transfer: str
    """Name of this among all that the engine sends."""
    session: str
    """Name of the connection to that engine."""
    slot: int
    pages: list[int]
    """Of its memory; page i holds the tokens [i * page_size, (i + 1) * page_size)."""


class Phase(Enum):
    """Where a request is in its life; the last three are terminal."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    """It owns memory, which another engine fills."""
    PREFILLING = "prefilling"
    DECODING = "decoding"
    FINISHED = "finished"
    ABORTED = "aborted"
    FAILED = "failed"


TERMINAL = (Phase.FINISHED, Phase.ABORTED, Phase.FAILED)


@dataclass(slots=True, eq=False)
class Request:
    """One sequence to generate."""

    id: str
    prompt: list[int]
    sampling: SamplingParameters
    output: list[int] = field(default_factory=list)
    phase: Phase = Phase.WAITING
    computed: int = 0
    """Tokens whose keys, values and state are in memory after all steps that were launched."""
    pending: int = 0
    """Tokens that launched steps draw and that have not come back yet: 0 or 1."""
    memory: Reservation | None = None
    target: Target | None = None
    """Set where its prompt is computed for another engine."""

    def token(self, index: int) -> int:
        """Return the token at a position of prompt + output."""
        return (
            self.prompt[index]
            if index < len(self.prompt)
            else self.output[index - len(self.prompt)]
        )

    def tokens(self, begin: int, end: int) -> list[int]:
        """Return the tokens of prompt + output at positions begin..end-1."""
        own = len(self.prompt)
        if end <= own:
            return self.prompt[begin:end]
        return self.prompt[begin:] + self.output[max(0, begin - own) : end - own]

    @property
    def length(self) -> int:
        """Tokens of prompt and output that have come back so far."""
        return len(self.prompt) + len(self.output)

    @property
    def most_tokens(self) -> int:
        """Tokens that it can come to hold in memory."""
        return len(self.prompt) + self.sampling.max_tokens

    @property
    def drawn_out(self) -> bool:
        """Whether max_tokens have been drawn, with those that have not come back yet."""
        return len(self.output) + self.pending >= self.sampling.max_tokens

    def part(self) -> Reservation:
        """Leave the memory to the caller, who has to release it.

        Raises:
            RuntimeError: the request owns no memory.
        """
        if self.memory is None:
            raise RuntimeError(f"request {self.id} has nothing to give back")
        memory, self.memory = self.memory, None
        return memory

    def end(self, phase: Phase) -> None:
        """Enter a terminal phase and give the memory back: the only place that does either.

        Raises:
            RuntimeError: the request has ended before, or the phase is not terminal.
        """
        if self.phase in TERMINAL or phase not in TERMINAL:
            raise RuntimeError(f"request {self.id} cannot go from {self.phase} to {phase}")
        self.phase = phase
        if self.memory is not None:
            self.memory.release()
            self.memory = None
