"""What a file of prompts says: JSON lines, or conversations in ShareGPT's form."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from upcurve.errors import InputError

MEND = "give JSON lines with prompt, messages or token_ids, or ShareGPT's conversations"

_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant", "chatgpt", "bing")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a file says of one prompt."""

    content: Any
    """Text, list of token ids or list of messages; never empty."""
    answer: str | None = None
    """Text whose tokens are the output length."""
    output_tokens: int | None = None


def lines(data: bytes, order: random.Random) -> Iterator[Row]:
    """Yield the rows of JSON lines in a drawn order; all are checked before the first.

    Of a large file only places are held beside its bytes: a row is read again when it is due.

    Raises:
        InputError: a line is no prompt.
    """
    spans = []
    start = number = 0
    while start < len(data):
        number += 1
        end = data.find(b"\n", start) % (len(data) + 1)  # -1, where none follows, is the end
        if data[start:end].strip():
            try:
                _row(data[start:end])
            except (ValueError, TypeError, AttributeError):
                raise InputError("dataset", f"line {number} is no prompt", MEND) from None
            spans.append((start, end))
        start = end + 1
    order.shuffle(spans)
    for start, end in spans:
        yield _row(data[start:end])


def conversations(data: bytes, order: random.Random) -> Iterator[Row]:
    """Yield the first human turn that is answered of each conversation, in a drawn order.

    Raises:
        InputError: an entry is no conversation.
    """
    try:
        entries = orjson.loads(data)
    except ValueError as error:
        raise InputError("dataset", f"no ShareGPT file ({error})", MEND) from None
    if not isinstance(entries, list):
        raise InputError("dataset", "no ShareGPT file (no list of conversations)", MEND)
    rows = []
    for number, entry in enumerate(entries, 1):
        try:
            row = _exchange(entry)
        except (TypeError, KeyError, AttributeError):
            raise InputError("dataset", f"entry {number} is no conversation", MEND) from None
        if row is not None:
            rows.append(row)
    order.shuffle(rows)
    yield from rows


def distinct(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows whose content was not there before."""
    seen = set()
    for row in rows:
        key = hashlib.sha256(orjson.dumps(row.content)).digest()
        if key not in seen:
            seen.add(key)
            yield row


def _row(line: bytes) -> Row:
    """Return the row of a line; raise ValueError, TypeError or AttributeError where it is none."""
    found = orjson.loads(line)
    (content,) = [found[key] for key in ("prompt", "messages", "token_ids") if key in found]
    asked = found.get("output_tokens", found.get("max_tokens"))
    if not _is_content(content) or not (asked is None or (type(asked) is int and asked > 0)):
        raise ValueError("no prompt")
    return Row(content, None, asked)


def _exchange(entry: Any) -> Row | None:
    """Return a question and its answer, None where a conversation has none."""
    turns = entry.get("conversations") or entry.get("conversation") or []
    for turn, answer in pairwise(turns):
        question, reply = turn["value"], answer["value"]
        if turn["from"] in _HUMAN and answer["from"] in _MODEL and question and reply:
            if not isinstance(question, str) or not isinstance(reply, str):
                raise TypeError("no text")
            return Row(question, reply)
    return None


def _is_content(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content)
    if not isinstance(content, list) or not content:
        return False
    if set(map(type, content)) == {int}:
        return bool(min(content) >= 0 and max(content) < 2**32)
    return all(isinstance(each, dict) and "role" in each for each in content)
