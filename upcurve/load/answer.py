"""One answer as it was read: bytes and times in; tokens, usage and failure out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
import orjson

from upcurve.load.event import Choice, Event, decode_many, decode_one, decode_plain
from upcurve.load.trace import RESOLUTION_NS, Failure, counts, times

_DETAIL_LENGTH = 300
_DATA = b"data: "
_END = b"}\n\n"


@dataclass(slots=True)
class Answer:
    """The content of one streamed completion, fed slice by slice.

    An event is stamped with the time of the read that completed it.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    first_answer_ns: int | None = None
    """The first event with content that is no reasoning."""
    failure: Failure | None = None
    detail: str | None = None
    done: bool = False
    _rest: bytes = b""
    _ids_ns: array[int] = field(default_factory=times)
    _ids: array[int] = field(default_factory=counts)
    _text_ns: array[int] = field(default_factory=times)
    _usage_ns: array[int] = field(default_factory=times)
    _usage: array[int] = field(default_factory=counts)

    def feed(self, time_ns: int, data: bytes) -> None:
        """Take what one read returned."""
        self.take([(time_ns, data)])

    def take(self, reads: Sequence[tuple[int, bytes]]) -> None:
        """Take what several reads returned, each with its time in ns: cheaper than one by one."""
        # The last reads carry the end, which is no event like the others.
        plain = len(reads) - 3
        if plain < 1 or not self._take_ordinary(reads[:plain]):
            plain = 0
        stamps: list[int] = []
        events: list[bytes] = []
        for time_ns, data in reads[plain:]:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                event = self._event_of(line.rstrip(b"\r"), stamps, events)
                if event:
                    stamps.append(time_ns)
                    events.append(event)
        self._decode(stamps, events)

    def _take_ordinary(self, reads: Sequence[tuple[int, bytes]]) -> bool:
        """Take reads that are one event each, all at once; return whether they are."""
        bodies = [data for _, data in reads]
        whole = b"".join(bodies)
        if (
            self._rest
            or self.failure
            or self.done
            or not whole.startswith(_DATA)
            # As many events as reads, and every read ends with one.
            or whole.count(b"\n") != 2 * len(bodies)
            or [each[-3:] for each in bodies].count(_END) != len(bodies)
        ):
            return False
        text = b"[" + whole[len(_DATA) : -2].replace(b"\n\n" + _DATA, b",") + b"]"
        stamps = [time_ns for time_ns, _ in reads]
        return self._take_plain(stamps, text) or self._take_all(stamps, text)

    def _take_plain(self, stamps: Sequence[int], text: bytes) -> bool:
        """Take events that all are one choice with text and token ids, and nothing else."""
        try:
            choices = [event.choices[0] for event in decode_plain(text)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        lengths = [len(choice.token_ids) if choice.token_ids else 0 for choice in choices]
        texts = [choice.text for choice in choices]
        if len(choices) != len(stamps) or 0 in lengths or None in texts or "" in texts:
            return False
        self._ids_ns.extend(stamps)
        self._ids.extend(lengths)
        self._text_ns.extend(stamps)
        if self.first_answer_ns is None:
            self.first_answer_ns = stamps[0] // RESOLUTION_NS * RESOLUTION_NS
        for choice in choices:
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
        return True

    def _take_all(self, stamps: Sequence[int], text: bytes) -> bool:
        try:
            events = decode_many(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        if len(events) != len(stamps):
            return False
        for time_ns, event in zip(stamps, events, strict=True):
            self._take(time_ns, event)
        return True

    def finish(self, requested: int | None = None) -> None:
        """Judge an answer that the server ended by itself.

        Args:
            requested: output tokens that were asked for. An answer of another length is a failure
                where the length is known, by usage or token ids; None: any length is right.
        """
        if self.failure is None and not self.done:
            if self._rest.strip() and not self._rest.startswith(b"data:"):
                self._fail("malformed", f"no event stream: {excerpt(self._rest)}")
            else:
                self._fail("cut", "the stream ended without [DONE]")
        if self.failure is None and not (self._ids_ns or self._text_ns):
            self._fail("malformed", "the answer has no token")
        length = self.counted_tokens if self.output_tokens is None else self.output_tokens
        if self.failure is None and None not in (requested, length) and length != requested:
            assert length is not None, "checked in the line above"
            assert requested is not None, "checked in the line above"
            kind: Failure = "short_output" if length < requested else "long_output"
            self._fail(kind, f"{length} tokens, {requested} were asked for")

    @property
    def has_content(self) -> bool:
        """Whether a token has come."""
        return bool(self._ids_ns or self._text_ns)

    @property
    def counted_tokens(self) -> int | None:
        """Tokens by their ids; None where no ids came."""
        return sum(self._ids) if self._ids else None

    @property
    def chunks(self) -> tuple[array[int], array[int]]:
        """Times in ns (whole microseconds) and tokens of the events with content.

        Tokens are counted from their ids, else from the usage that came with every event. Without
        both, the server's total is spread evenly over the events with text; without a total, each
        is one token.
        """
        if self._ids_ns:
            return _whole(self._ids_ns), self._ids
        if self._usage_ns and len(self._usage_ns) >= len(self._text_ns):
            grown = [after - before for before, after in pairwise([0, *self._usage])]
            kept = [place for place, tokens in enumerate(grown) if tokens > 0]
            return (
                _whole(self._usage_ns[place] for place in kept),
                counts(grown[place] for place in kept),
            )
        count = len(self._text_ns)
        total = count if self.output_tokens is None else self.output_tokens
        return _whole(self._text_ns), counts(_spread(total, count))

    def _event_of(self, line: bytes, stamps: list[int], events: list[bytes]) -> bytes | None:
        """Return the JSON that a line carries, None where it has none."""
        if self.done or self.failure or not line:
            return None
        if line.startswith((b":", b"event:", b"id:", b"retry:")):
            return None
        if not line.startswith(b"data:"):
            self._flush(stamps, events)
            if self.failure is None:
                self._fail("malformed", f"no event stream: {excerpt(line)}")
            return None
        data = line[5:].strip()
        if data != b"[DONE]":
            return data
        self._flush(stamps, events)
        self.done = True
        return None

    def _flush(self, stamps: list[int], events: list[bytes]) -> None:
        """Take what came before that which ends the answer."""
        self._decode(stamps, events)
        stamps.clear()
        events.clear()

    def _decode(self, stamps: Sequence[int], events: Sequence[bytes]) -> None:
        if not events or self.failure or self.done:
            return
        for time_ns, text in zip(stamps, events, strict=True):
            try:
                event = decode_one(text)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self._fail("malformed", f"no completion: {excerpt(text)}")
                return
            self._take(time_ns, event)

    def _take(self, time_ns: int, event: Event) -> None:
        if self.failure is not None:
            return
        if event.error:
            said = event.error
            message = said.get("message") if isinstance(said, dict) else said
            self._fail("error_event", excerpt(str(message).encode()))
            return
        usage = event.usage
        if usage is not None:
            self.prompt_tokens = usage.prompt_tokens
            self.output_tokens = usage.completion_tokens or 0
            if usage.prompt_tokens_details is not None:
                self.cached_tokens = usage.prompt_tokens_details.cached_tokens
        if event.choices is None:
            if usage is None:
                self._fail("malformed", "an event without choices, usage or error")
            return
        for choice in event.choices:
            if usage is not None:
                self._usage_ns.append(time_ns)
                self._usage.append(usage.completion_tokens or 0)
            self._take_choice(time_ns, choice)

    def _take_choice(self, time_ns: int, choice: Choice) -> None:
        if choice.token_ids:
            self._ids_ns.append(time_ns)
            self._ids.append(len(choice.token_ids))
        delta = choice.delta
        if delta is None:
            answer: Any = choice.text
            content = answer
        else:
            answer = delta.content or delta.tool_calls
            content = answer or delta.reasoning_content or delta.reasoning
        if content:
            self._text_ns.append(time_ns)
        if answer and self.first_answer_ns is None:
            self.first_answer_ns = time_ns // RESOLUTION_NS * RESOLUTION_NS
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def _fail(self, failure: Failure, detail: str) -> None:
        if self.failure is None:
            self.failure, self.detail = failure, detail


def excerpt(data: bytes) -> str:
    """Return the start of what a server said, on one line of printable characters."""
    text = " ".join(data[: 4 * _DETAIL_LENGTH].decode(errors="replace").split())
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= _DETAIL_LENGTH else text[: _DETAIL_LENGTH - 3] + "..."


def error_message(body: bytes) -> str:
    """Return the message of an error answer, in OpenAI's form or FastAPI's, else its start."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return excerpt(body)
    for path in (("error", "message"), ("message",), ("detail",), ("error",)):
        found = _at(value, path)
        if isinstance(found, str):
            return excerpt(found.encode())
    return excerpt(body)


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _whole(stamps: Iterable[int]) -> array[int]:
    return times([each // RESOLUTION_NS * RESOLUTION_NS for each in stamps])


def _spread(total: int, parts: int) -> Iterator[int]:
    """Yield `parts` whole numbers, as equal as can be and the first the largest, of sum `total`."""
    for part in range(parts):
        yield -(-(part + 1) * total // parts) + -part * total // parts
