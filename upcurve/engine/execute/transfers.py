"""A rank's part in moving prompts between engines: what its leader orders, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from upcurve.engine.transfer.link import Part


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Order to a rank that prefills: be ready to send to the ranks of another engine."""

    session: str
    description: bytes
    """Of the other engine's caches."""
    offers: list[bytes]
    """How each of its ranks is reached."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Order to a rank that prefills: send no more of a transfer."""

    transfer: str


class Close(msgspec.Struct, frozen=True, array_like=True, tag="close"):
    """Order to a rank that prefills: the other engine is gone."""

    session: str


class Invite(msgspec.Struct, frozen=True, array_like=True, tag="invite"):
    """Order to a rank that decodes: say how a prefill worker reaches it."""

    session: str


class Expel(msgspec.Struct, frozen=True, array_like=True, tag="expel"):
    """Order to a rank that decodes: let a prefill worker write no more."""

    session: str


Order = Open | Cancel | Close | Invite | Expel


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What a rank tells its leader."""

    kind: Literal["offer", "opened", "ended", "expelled"]
    """ended: of a transfer, this rank sends no more, and all that it has sent has arrived."""
    name: str = ""
    """Of the transfer, or of the session."""
    error: str | None = None
    """Why it is not open, or not whole."""
    offer: bytes = b""
    sent_bytes: int = 0
    """That this rank has sent in all."""


@dataclass(frozen=True, slots=True)
class Told:
    """A report, and whose it is."""

    rank: int
    """Among those that share the heads."""
    report: Report


class Transfers(Protocol):
    """One rank's side of all transfers; its methods are for the thread that launches steps."""

    def obey(self, order: Order) -> None:
        """Carry out an order, and wait for nothing; the answer is a report, on any thread."""

    def begin(self, parts: Sequence[Part]) -> Callable[[int], None] | None:
        """Prepare to send what a step computes; return what to call behind each layer."""


encode_report = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(Report).decode

Tell = Callable[[Report], None]
