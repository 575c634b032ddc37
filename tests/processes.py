"""What tests ask about real processes: whether they are gone, and by when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil


def lives(process: psutil.Process | int) -> bool:
    """Return whether a process (or a process id) still runs; a zombie does not."""
    # It may end between any two looks at it.
    try:
        each = psutil.Process(process) if isinstance(process, int) else process
        return each.is_running() and each.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(processes: Iterable[psutil.Process | int]) -> bool:
    """Return whether none of them still runs."""
    return not any(lives(process) for process in processes)


def descendants(root: int, word: str = "") -> list[psutil.Process]:
    """Return the descendants of a process id, or those that have a word in their command line."""

    def has_it(process: psutil.Process) -> bool:
        try:
            return word in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            return False

    return [each for each in psutil.Process(root).children(recursive=True) if has_it(each)]


def until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Wait until a condition holds; return whether it came to hold in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
