"""Prompts from a file: JSON lines, or conversations in ShareGPT's form."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy
import orjson

from upcurve.errors import InputError
from upcurve.load.workload.lengths import Lengths
from upcurve.load.workload.prompt import PHASES, Phase, Prompt, Tokens, entropy, generator
from upcurve.load.workload.text import load_tokenizer

Format = Literal["auto", "jsonl", "sharegpt"]

MOST_ENTRIES = 20_000
"""Entries that are kept, drawn by the seed: every measuring process holds them."""

_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant", "chatgpt", "bing")
_MEND = "give JSON lines with prompt, messages or token_ids, or ShareGPT's conversations"


@dataclass(frozen=True, slots=True)
class Entry:
    """One prompt of a file."""

    content: str | list[int] | list[dict[str, Any]]
    """Text, token ids or messages."""
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class DatasetWorkload:
    """Prompts of a file in a seeded order; warm-up and probe take theirs from its end."""

    name: str
    """Of the file."""
    digest: str
    """SHA-256 of the file, in hex."""
    entries: tuple[Entry, ...]
    output_length: Lengths | None
    """Asked for in place of the file's own; None: as the file says, else until the model ends."""
    seed: int = 0
    repeat: bool = False
    """Whether entries may be sent more than once."""
    salt: str = ""

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        format: Format = "auto",  # noqa: A002 - what the option is called
        tokenizer: Path | None = None,
        osl: Lengths | None = None,
        seed: int = 0,
        repeat: bool = False,
    ) -> Self:
        """Read a file.

        A line of JSON holds `prompt` (text), `messages` or `token_ids`, and may hold
        `output_tokens` or `max_tokens`. Of a conversation the first human turn is the prompt; the
        turn that follows it gives the output length, where a tokenizer counts it.

        Args:
            path: the file.
            format: its form; auto: by its first character.
            tokenizer: tokenizer.json or its folder, to count tokens with.
            osl: output lengths to ask for in place of the file's own.
            seed: of the order, and of drawn lengths.
            repeat: whether entries may be sent more than once.

        Raises:
            InputError: the file cannot be read, or a line of it is no prompt.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError("dataset", f"{path}: {error.strerror}", "name a file") from None
        if format == "auto":
            format = "sharegpt" if data.lstrip()[:1] == b"[" else "jsonl"  # noqa: A001
        read = list(_conversations(data) if format == "sharegpt" else _lines(data))
        if not read:
            raise InputError("dataset", f"{path} holds no prompt", _MEND)
        random.Random(seed).shuffle(read)  # noqa: S311 - an order, no secret
        count = None if tokenizer is None else _counter(tokenizer)
        entries = tuple(_entry(each, count) for each in read[:MOST_ENTRIES])
        digest = hashlib.sha256(data).hexdigest()
        return cls(path.name, digest, entries, osl, seed, repeat)

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
        offset = entropy(self.seed, self.salt) if self.repeat else 0
        if phase == "measured":
            place = (offset + index) % len(self.entries)
        else:
            place = (offset - 1 - index - (PHASES.index(phase) == 1)) % len(self.entries)
        entry = self.entries[place]
        output = entry.output_tokens
        if self.output_length is not None:
            rng = generator(self.seed, self.salt, phase, index)
            output = self.output_length.sample(rng)
        content: Any = entry.content
        if isinstance(content, list) and content and isinstance(content[0], int):
            ids: Tokens = numpy.array(content, dtype=numpy.uint32)
            content = ids
        return Prompt(content, entry.input_tokens, output)

    def require(self, requests: int) -> None:
        """Check that the file has so many prompts, unless they may repeat.

        Raises:
            InputError: it has not.
        """
        if requests > len(self.entries) and not self.repeat:
            problem = f"{requests} requests, and {self.name} has {len(self.entries)} prompts"
            raise InputError("dataset", problem, "send fewer, or give --dataset-repeat")

    def content_hash(self) -> str:
        """Return the SHA-256, in hex, of all that the prompts follow from."""
        facts = ("upcurve.load.workload/2", self.facts(), self.seed, self.salt)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it."""
        return {
            "prompts": f"dataset {self.name}" + (", repeated" if self.repeat else ""),
            "dataset": {"name": self.name, "sha256": self.digest, "prompts": len(self.entries)},
            "osl": None if self.output_length is None else self.output_length.describe(),
        }

    def salted(self, salt: str) -> Self:
        """Return the same file; where prompts may repeat, begun at another place."""
        return replace(self, salt=salt)


Raw = tuple[Any, str | None, int | None]
"""Content, answer (to be counted), output tokens."""


def _lines(data: bytes) -> Iterator[Raw]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            contents = [row[key] for key in ("prompt", "messages", "token_ids") if key in row]
            (content,) = contents
            asked = row.get("output_tokens", row.get("max_tokens"))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError("dataset", f"line {number} is no prompt", _MEND) from None
        if not _is_content(content) or not (asked is None or (type(asked) is int and asked > 0)):
            raise InputError("dataset", f"line {number} is no prompt", _MEND)
        yield content, None, asked


def _conversations(data: bytes) -> Iterator[Raw]:
    try:
        rows = orjson.loads(data)
        for row in rows:
            turns = row.get("conversations") or row.get("conversation") or []
            for turn, answer in pairwise(turns):
                if turn["from"] in _HUMAN and answer["from"] in _MODEL and turn["value"]:
                    yield str(turn["value"]), str(answer["value"]), None
                    break
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("dataset", f"no ShareGPT file ({error})", _MEND) from None


def _is_content(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content)
    if not isinstance(content, list) or not content:
        return False
    ids = all(type(each) is int and each >= 0 for each in content)
    return ids or all(isinstance(each, dict) and "role" in each for each in content)


def _counter(path: Path) -> Any:
    _, tokenizer = load_tokenizer(path)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _entry(raw: Raw, count: Any) -> Entry:
    content, answer, asked = raw
    if isinstance(content, str):
        tokens = None if count is None else count(content)
    else:
        tokens = len(content) if isinstance(content[0], int) else None
    if asked is None and answer and count is not None:
        asked = max(1, count(answer))
    return Entry(content, tokens, asked)
