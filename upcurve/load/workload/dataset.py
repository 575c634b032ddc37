"""Prompts from a file: JSON lines, or conversations in ShareGPT's form."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy

from upcurve.errors import InputError
from upcurve.load.workload.lengths import Lengths
from upcurve.load.workload.prompt import Phase, Prompt, Tokens, entropy, generator
from upcurve.load.workload.rows import MEND, Row, conversations, distinct, lines
from upcurve.load.workload.text import load_tokenizer, name_of

Format = Literal["auto", "jsonl", "sharegpt"]

MOST_ENTRIES = 20_000
"""Entries that are kept unless told otherwise: every measuring process holds them."""

_RESERVED = 8
"""One entry in so many is kept for the warm-up."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One prompt of a file."""

    content: Tokens | str | list[dict[str, Any]]
    """Token ids (uint32), text or messages."""
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class DatasetWorkload:
    """Prompts of a file in a seeded order.

    Its last entries are kept for probe and warm-up, so that no measured prompt was sent before.
    The warm-up begins again where its entries end. Points of one server take turns: `after` moves
    a point behind those before it.
    """

    name: str
    """Of the file."""
    digest: str
    """SHA-256 of the file, in hex."""
    form: Format
    entries: tuple[Entry, ...]
    """Distinct, unless they may repeat."""
    output_length: Lengths | None
    """Asked for in place of the file's own; None: as the file says, else until the model ends."""
    tokenizer: str | None
    """What counted tokens: name of its folder, and the SHA-256 of the file."""
    seed: int = 0
    repeat: bool = False
    """Whether entries may be sent more than once."""
    first: int = 0
    """Measured entries that other points take before this one."""
    salt: str = ""

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        format: Format = "auto",  # noqa: A002 - what the option is called
        tokenizer: Path | None = None,
        osl: Lengths | None = None,
        limit: int | None = None,
        seed: int = 0,
        repeat: bool = False,
    ) -> Self:
        """Read a file.

        A line of JSON holds `prompt` (text), `messages` or `token_ids`, and may hold
        `output_tokens` or `max_tokens`. Of a conversation the first human turn that is answered
        is the prompt; a tokenizer counts the answer, which gives the output length.

        Args:
            path: the file.
            format: its form; auto: by its first character.
            tokenizer: tokenizer.json or its folder, to count tokens with.
            osl: output lengths to ask for in place of the file's own.
            limit: entries to keep at most, drawn by the seed; None: 20,000.
            seed: of the order, and of drawn lengths.
            repeat: whether entries may be sent more than once.

        Raises:
            InputError: the file cannot be read, a line of it is no prompt, or there is no output
                length for conversations.
        """
        most = MOST_ENTRIES if limit is None else limit
        if most < 1:
            raise InputError("limit", f"{most} entries are none", "give 1 or more")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError("dataset", f"{path}: {error.strerror}", "name a file") from None
        form: Format = format
        if form == "auto":
            form = "sharegpt" if data[:64].lstrip()[:1] == b"[" else "jsonl"
        if form == "sharegpt" and tokenizer is None and osl is None:
            problem = "conversations give no output length that is counted"
            raise InputError("osl", problem, "give --osl, or --tokenizer to count their answers")
        count, counted_by = _counter(tokenizer)
        read = conversations if form == "sharegpt" else lines
        rows = read(data, random.Random(seed))  # noqa: S311 - an order, no secret
        kept = islice(rows if repeat else distinct(rows), most)
        entries = tuple(_entry(row, count) for row in kept)
        if not entries:
            raise InputError("dataset", f"{path} holds no prompt", MEND)
        digest = hashlib.sha256(data).hexdigest()
        return cls(path.name, digest, form, entries, osl, counted_by, seed, repeat)

    @property
    def isl(self) -> int:
        """Mean input length in tokens, rounded; 1 where it is not known."""
        known = [each.input_tokens for each in self.entries if each.input_tokens is not None]
        return max(1, round(sum(known) / len(known))) if known else 1

    @property
    def osl(self) -> int:
        """Mean output length in tokens, rounded; 1 where it is not known."""
        if self.output_length is not None:
            return self.output_length.nominal
        known = [each.output_tokens for each in self.entries if each.output_tokens is not None]
        return max(1, round(sum(known) / len(known))) if known else 1

    @property
    def exact_output(self) -> bool:
        """Whether every answer's length is asked for."""
        return self.output_length is not None or all(
            each.output_tokens is not None for each in self.entries
        )

    @property
    def shared_prefix(self) -> bool:
        """Whether prompts may share beginnings: those of a file may, and repeated ones do."""
        return True

    def prompt(self, phase: Phase, index: int) -> Prompt:
        """Return a prompt of the file."""
        entry = self.entries[self._place(phase, index)]
        output = entry.output_tokens
        if self.output_length is not None:
            rng = generator(self.seed, self.salt, phase, index)
            output = self.output_length.sample(rng)
        return Prompt(entry.content, entry.input_tokens, output)

    def require(self, requests: int) -> None:
        """Check that so many distinct prompts can be measured, unless they may repeat.

        Raises:
            InputError: the file has not so many beside those of probe and warm-up.
        """
        if self.first + requests > self._measured and not self.repeat:
            problem = (
                f"{self.first + requests} requests, and {self.name} has {self._measured} prompts "
                f"to measure ({len(self.entries)} less those of the warm-up)"
            )
            raise InputError("dataset", problem, "send fewer, or give --dataset-repeat")

    def _place(self, phase: Phase, index: int) -> int:
        if self.repeat:
            return (entropy(self.seed, self.salt, phase) + index) % len(self.entries)
        if phase == "probe":
            return len(self.entries) - 1
        if phase == "measured":
            return (self.first + index) % max(1, self._measured)
        start = entropy(self.seed, self.salt) + index
        return len(self.entries) - 2 - start % self._warm_up if len(self.entries) > 1 else 0

    @property
    def _warm_up(self) -> int:
        """Entries of the warm-up."""
        return max(1, len(self.entries) // _RESERVED)

    @property
    def _measured(self) -> int:
        """Entries that are measured: all but those of the warm-up, and the probe's."""
        return max(0, len(self.entries) - self._warm_up - 1)

    def content_hash(self) -> str:
        """Return the SHA-256, in hex, of all that the prompts follow from."""
        facts = ("upcurve.load.workload/4", self.facts(), self.seed, self.first, self.salt)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it."""
        return {
            "prompts": f"dataset {self.name}" + (", repeated" if self.repeat else ""),
            "dataset": {
                "name": self.name,
                "sha256": self.digest,
                "format": self.form,
                "prompts": len(self.entries),
            },
            "tokenizer": self.tokenizer,
            "osl": None if self.output_length is None else self.output_length.describe(),
        }

    def salted(self, salt: str) -> Self:
        """Return the same file with other lengths drawn, and a warm-up of its own."""
        return replace(self, salt=salt)

    def after(self, requests: int) -> Self:
        """Return the same file without the entries that points before this one take."""
        return replace(self, first=requests)

    @property
    def kinds(self) -> frozenset[str]:
        """What its prompts are: text, token ids or messages."""
        return frozenset(
            "text"
            if isinstance(each.content, str)
            else "messages"
            if isinstance(each.content, list)
            else "token ids"
            for each in self.entries
        )

    @property
    def counted(self) -> bool:
        """Whether the tokens of every prompt are known."""
        return all(each.input_tokens is not None for each in self.entries)


def _counter(path: Path | None) -> tuple[Callable[[str], int] | None, str | None]:
    if path is None:
        return None, None
    file, tokenizer = load_tokenizer(path)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), name_of(file)


def _entry(row: Row, count: Callable[[str], int] | None) -> Entry:
    asked = row.output_tokens
    if asked is None and row.answer is not None and count is not None:
        asked = max(1, count(row.answer))
    if isinstance(row.content, str):
        return Entry(row.content, None if count is None else count(row.content), asked)
    if isinstance(row.content[0], int):
        ids: Tokens = numpy.array(row.content, dtype=numpy.uint32)
        return Entry(ids, len(ids), asked)
    return Entry(row.content, None, asked)
