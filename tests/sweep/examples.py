"""Recipes that several tests use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from upcurve.sweep.recipe import Recipe

ENGINE = Path(__file__).parent / "engine.py"


def values(*flags: object, **changes: Any) -> dict[str, Any]:
    """Return a recipe of the small test engine, as a file would say it."""
    command = [sys.executable, str(ENGINE), "--port", "{port}", *map(str, flags)]
    return {
        "name": "small",
        "model": "small",
        "hardware": "CPU",
        "engine": {"name": "test", "command": command, "health": {"timeout_s": 300}},
        "workload": {"isl": 8, "osl": 4, "requests_per_stream": 2, "warmup": 1},
        "concurrency": [1, 2],
        "repeats": 2,
    } | changes


def recipe(*flags: object, **changes: Any) -> Recipe:
    return Recipe.model_validate(values(*flags, **changes))


def recipe_file(path: Path, *flags: object, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(values(*flags, **changes)))
    return path
