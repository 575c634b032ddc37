"""Processes that begin at once: engines start many, and each would import torch for itself."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_processes(monkeypatch: Any) -> Iterator[None]:
    """Let processes be copies of one that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "upcurve.engine.build",
            "upcurve.engine.fidelity.pool",
            "upcurve.engine.roles.joining",
        ]
    )
    monkeypatch.setattr(multiprocessing, "get_context", lambda _=None: context)
    yield
