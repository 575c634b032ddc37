"""The fingerprint: one hash over all that can change speed but parallelism and concurrency."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upcurve.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFacts:
    """All that can change speed. No field has a default, so that none is forgotten.

    Parallelism and concurrency stay out: a command holds its placeholders, not their values.
    """

    engine: str
    engine_version: str
    engine_commit: str
    image: str
    """Container image with its digest."""
    command: list[str]
    """The engine's command line with its flags."""
    environment: dict[str, str]
    """Environment variables that the recipe sets, and those the engine inherits and may read."""
    model: str
    model_files: dict[str, str]
    """File name -> digest, from `model_digests`; {} where the files cannot be seen."""
    precision: str
    workload: dict[str, Any]
    """Lengths and how they are drawn, requests, sampling."""
    hardware: str
    software: dict[str, Any]
    """Driver, runtime and library versions."""
    harness_version: str
    """Version of the client that measures."""


def fingerprint(facts: SpeedFacts) -> str:
    """Return the SHA-256 of the canonical JSON of the facts, in hex.

    Raises:
        InputError: a value has no canonical JSON form.
    """
    return hashlib.sha256(canonical_json(asdict(facts))).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII.

    Values that differ have texts that differ (1, 1.0, "1" and true are four values); the order of
    keys does not count.

    Raises:
        InputError: a key is not a string, a number is not finite, or a value is no JSON.
    """
    _check_keys(value)
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError("fingerprint", str(error), "use strings, finite numbers, lists") from error
    return text.encode("ascii")


def _check_keys(value: Any) -> None:
    """Refuse keys that JSON would turn into strings: 1 and "1" are to stay two keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError("fingerprint", f"the key {key!r} is no string", "put it in quotes")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def model_digests(folder: Path) -> dict[str, str]:
    """Return file name -> "SIZE:SHA-256" of every file in a model folder, hidden ones left out.

    Files are read in pieces; links are followed, because model caches are made of them.

    Raises:
        InputError: the folder is missing, empty or cannot be read.
    """
    if not folder.is_dir():
        raise InputError("model", f"{folder} is no folder", "name the folder of a checkpoint")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise InputError("model", f"{folder} holds no files", "name the folder of a checkpoint")
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError("model", f"{path}: {error.strerror}", "make it readable") from error
    return f"{path.stat().st_size}:{digest}"
