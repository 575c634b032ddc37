"""Answers as they were given: one JSON line each, appended whole, so that a kill costs none."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from upcurve.closing import Closing
from upcurve.errors import InputError

FORM = "upcurve-answers-1"
"""What the first line says that the file is."""


class AnswersFile(Closing):
    """A file of answers to one set of questions: what was asked in its first line, then answers."""

    def __init__(self, path: Path, descriptor: int, found: dict[str, dict[str, Any]]) -> None:
        self.path = path
        self._descriptor = descriptor
        self.answers = found
        """Id of an item -> its last answer."""

    @classmethod
    def begin(cls, folder: Path, stem: str, facts: Mapping[str, Any]) -> AnswersFile:
        """Create `FOLDER/STEM-RANDOM.jsonl`.

        Args:
            folder: where; it is made.
            stem: what the name begins with.
            facts: all that the answers depend on.

        Raises:
            InputError: the disk refuses.
        """
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", stem)
        path = folder / f"{safe}-{secrets.token_hex(4)}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise _refused(path, error) from error
        file = cls(path, descriptor, {})
        file._write({"form": FORM, **facts})
        return file

    @classmethod
    def resume(cls, folder: Path, facts: Mapping[str, Any]) -> AnswersFile | None:
        """Open the newest file of the same facts, without a line that a kill cut short.

        Raises:
            InputError: the disk refuses.
        """
        wanted = orjson.loads(orjson.dumps({"form": FORM, **facts}))
        for path in sorted(folder.glob("*.jsonl"), key=_modified, reverse=True):
            try:
                if _header(path) != wanted:
                    continue
                whole = _whole_bytes(path)
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
                os.truncate(descriptor, whole)
            except OSError as error:
                raise _refused(path, error) from error
            return cls(path, descriptor, read_answers(path))
        return None

    def add(self, answer: Mapping[str, Any]) -> None:
        """Append the answer to an item, named by `id`.

        Raises:
            InputError: the disk refuses.
        """
        self._write(answer)
        self.answers[str(answer["id"])] = dict(answer)

    def close(self) -> None:
        """Force what was written to the disk, and close."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, value: Mapping[str, Any]) -> None:
        line = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        try:
            # One call: a process that is killed has written the line or not.
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise _refused(self.path, error) from error
        if written != len(line):
            raise InputError("store", f"{self.path}: the disk is full", "make room")


def read_answers(path: Path) -> dict[str, dict[str, Any]]:
    """Return id -> last answer of a file; a line that was cut short is left out.

    Raises:
        InputError: the file cannot be read, or is none of answers.
    """
    try:
        if (_header(path) or {}).get("form") != FORM:
            raise InputError("answers", f"{path} holds no answers", "name a file of upcurve eval")
        with path.open("rb") as file:
            lines = file.read(_whole_bytes(path)).splitlines()[1:]
    except OSError as error:
        raise _refused(path, error) from error
    answers = [orjson.loads(line) for line in lines]
    return {each["id"]: each for each in answers}


def _header(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        line = file.readline()
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _whole_bytes(path: Path) -> int:
    """Return how many bytes of a file are whole lines."""
    data = path.read_bytes()
    return data.rfind(b"\n") + 1


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _refused(path: Path, error: OSError) -> InputError:
    return InputError("store", f"{path}: {error.strerror or error}", "make it writable")
