"""Ports for the servers that tests start."""

from __future__ import annotations

from contextlib import ExitStack

from upcurve.sweep import engine_process

_held = ExitStack()


def free_port() -> int:
    """Return a port that no other test is given as long as this process runs."""
    return _held.enter_context(engine_process.free_port("127.0.0.1"))
