"""What a decode worker and a prefill worker tell each other, beside the caches' contents."""

from __future__ import annotations

import msgspec

from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.schedule.request import Request, SamplingParameters


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first message, of the decode worker."""

    session: str
    """Name of this connection, and no other."""
    description: bytes
    """Of its caches, with the version of all this."""
    offers: list[bytes]
    """How each of its ranks is reached."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The answer of the prefill worker: it is ready."""

    description: bytes


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """Its other answer: the parts of an EngineInputError."""

    field: str
    problem: str
    mend: str
    description: bytes
    """From which the decode worker sees for itself what differs."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """Compute a prompt, and put it there."""

    transfer: int
    """Never used twice by one decode worker."""
    prompt: list[int]
    sampling: SamplingParameters
    slot: int
    pages: list[int]

    @classmethod
    def of(cls, transfer: int, request: Request) -> Ask:
        """Ask for a request that owns memory."""
        memory = request.memory
        assert memory is not None
        return cls(transfer, request.prompt, request.sampling, memory.slot, list(memory.pages))


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Compute it no more; `Ended` or `Done` comes once nothing more of it will be written."""

    transfer: int


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """All of a prompt is in its place, and this is the first token."""

    transfer: int
    token: int
    logprobs: TokenLogprobs | None = None


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """A transfer is not done, and nothing more of it will be written."""

    transfer: int
    reason: str
    unfit: bool = False
    """Whether it was not begun: such a prompt can never be computed there."""


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """The sender is there; a prefill worker says so only where its engine gets on, or is idle."""


Message = Hello | Welcome | Refused | Ask | Cancel | Done | Ended | Beat

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode
