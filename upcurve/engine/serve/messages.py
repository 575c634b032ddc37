"""What the HTTP side and the engine's process tell each other: msgpack frames over one socket."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event
from upcurve.engine.execute.role import TransferCounts
from upcurve.engine.schedule.request import Request, SamplingParameters

if TYPE_CHECKING:
    # It imports torch, which the HTTP side has no use for.
    from upcurve.engine.roles.links import Link

HEAD_BYTES = 4
"""A frame is its length, little-endian in so many bytes, and a message."""


class Submit(msgspec.Struct, frozen=True, array_like=True, tag="submit"):
    """The command to generate."""

    request_id: str
    prompt: bytes
    """Token ids as int32 in the machine's byte order."""
    sampling: SamplingParameters

    @classmethod
    def of(cls, request: Request) -> Submit:
        """Return the command for a request."""
        return cls(request.id, array("i", request.prompt).tobytes(), request.sampling)

    def request(self) -> Request:
        """Return the request."""
        return Request(self.request_id, array("i", self.prompt).tolist(), self.sampling)


class Abort(msgspec.Struct, frozen=True, array_like=True, tag="abort"):
    """The command to end a request."""

    request_id: str


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """The command to end the engine, on all its ranks; the last one."""


class Capacity(msgspec.Struct, frozen=True, array_like=True, tag="capacity"):
    """The first report of an engine that is loaded: what it can hold."""

    description: str
    """What its memory is, in a line."""
    context_length: int
    vocab_size: int
    page_size: int
    total_pages: int
    total_slots: int
    role: Literal["server", "prefill", "decode"] = "server"

    @classmethod
    def of(cls, engine: Engine) -> Capacity:
        """Return the capacity of an engine."""
        usage = engine.memory.usage()
        return cls(
            engine.description,
            engine.context_length,
            engine.vocab_size,
            engine.memory.page_size,
            usage.total_pages,
            usage.total_slots,
            "server" if engine.role is None else engine.role.name,
        )

    def fits(self, tokens: int) -> bool:
        """Return whether a request of that many tokens, prompt and output, can be computed."""
        most = min(self.context_length, self.page_size * self.total_pages)
        return tokens <= most


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The only report of an engine that cannot be built: the parts of an EngineInputError."""

    field: str
    problem: str
    mend: str


class Broken(msgspec.Struct, frozen=True, array_like=True, tag="broken"):
    """The last report of an engine that is given up."""

    reason: str


class Status(msgspec.Struct, frozen=True, array_like=True):
    """An engine between two steps."""

    running: int = 0
    """Requests that own memory."""
    pages: int = 0
    slots: int = 0
    preemptions: int = 0
    """Since the start."""
    step_tokens: int = 0
    """Of prompts and outputs, in the step that was launched last."""
    senseless_steps: int = 0
    """How many of the last steps drew tokens, and none from finite logits."""
    transfers: TransferCounts | None = None
    """Where prompts are computed apart from outputs."""

    @classmethod
    def of(cls, engine: Engine) -> Status:
        """Return the status of an engine; for its own thread."""
        usage = engine.memory.usage()
        return cls(
            engine.running,
            usage.pages,
            usage.slots,
            engine.preemptions,
            engine.step_tokens,
            engine.senseless_steps_in_a_row,
            None if engine.role is None else engine.role.counts,
        )


class Step(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """The report of one step, or of requests that ended without one.

    Most events are no more than a token; those travel as two columns.
    """

    at: float
    """time.perf_counter() when it was done; one clock for all processes of a machine."""
    seconds: float | None
    """What the step took; None where there was none."""
    status: Status
    request_ids: list[str]
    tokens: list[int]
    others: list[Event]
    """They come after the tokens; a request's events stay in order, as only its last differ."""

    @classmethod
    def of(cls, at: float, seconds: float | None, status: Status, events: Sequence[Event]) -> Step:
        """Sort events into columns."""
        request_ids, tokens, others = [], [], []
        for event in events:
            if event.finish is None and event.logprobs is None and event.token is not None:
                request_ids.append(event.request_id)
                tokens.append(event.token)
            else:
                others.append(event)
        return cls(at, seconds, status, request_ids, tokens, others)

    def events(self) -> Iterator[Event]:
        """Return the events."""
        yield from map(Event, self.request_ids, self.tokens)
        yield from self.others


class PrefillWorker(msgspec.Struct, frozen=True, array_like=True):
    """One that a decode worker knows."""

    name: str
    """HOST:PORT."""
    state: Literal["down", "up", "refused"]
    reason: str
    """Why it is not up."""


class PrefillWorkers(msgspec.Struct, frozen=True, array_like=True, tag="workers"):
    """The report that the state of a prefill worker has changed."""

    workers: list[PrefillWorker]

    @classmethod
    def of(cls, links: Sequence[Link]) -> PrefillWorkers:
        """Return the state of connections."""
        return cls([PrefillWorker(each.name, each.state, each.reason) for each in links])


Command = Submit | Abort | Stop
Report = Capacity | Refused | Broken | Step | PrefillWorkers

_encoder = msgspec.msgpack.Encoder()
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_report = msgspec.msgpack.Decoder(Report).decode


def frame(message: Command | Report) -> bytes:
    """Return a message as it travels."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEAD_BYTES, "little") + body


class Frames:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, and return the messages that are whole by now, still encoded."""
        buffer = self._buffer
        buffer += data
        messages, begin = [], 0
        while len(buffer) >= begin + HEAD_BYTES:
            body = begin + HEAD_BYTES
            end = body + int.from_bytes(buffer[begin:body], "little")
            if end > len(buffer):
                break
            messages.append(bytes(buffer[body:end]))
            begin = end
        del buffer[:begin]
        return messages
