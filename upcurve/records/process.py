"""Which process writes a run, and whether it still lives."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


def this_process() -> str:
    """Return a mark of this process: machine, boot, process-id space, process id, start time."""
    return _mark(os.getpid(), psutil.Process().create_time())


def is_dead(mark: str) -> bool:
    """Whether the marked process is known to be gone.

    A process of another machine, or of another container on this one, cannot be seen from here:
    it counts as alive.
    """
    machine, boot, space, pid, _ = mark.split(" ")
    here_machine, here_boot, here_space, _, _ = this_process().split(" ")
    if machine != here_machine:
        return False
    if boot != here_boot:
        return True
    if space != here_space:
        return False
    try:
        return _mark(int(pid), psutil.Process(int(pid)).create_time()) != mark
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _mark(pid: int, started: float) -> str:
    machine = "".join(platform.node().split()) or "unnamed"
    return f"{machine} {_boot()} {_process_space()} {pid} {started:.2f}"


def _boot() -> str:
    identity = Path("/proc/sys/kernel/random/boot_id")
    return identity.read_text().strip() if identity.exists() else f"{psutil.boot_time():.0f}"


def _process_space() -> str:
    namespace = Path("/proc/self/ns/pid")
    return str(namespace.readlink()) if namespace.exists() else "-"
