"""The guard: a tiny process between the sweep and the engine, so that no engine is left behind.

`python -m upcurve.sweep.guard` reads one line of JSON from standard input, launches the engine in
a process group of its own, and holds standard input open. The sweep never closes it while it
lives; when it ends (stopped by itself, by an error or by kill -9), the guard ends the engine and
all its descendants: SIGTERM, then SIGKILL after a grace period.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

CANNOT_LAUNCH = 127
"""Exit status of a guard whose engine could not be launched; the log says why."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Launch and watch the engine; return its exit status, 128 + N where signal N ended it."""
    order = json.loads(sys.stdin.buffer.readline() or "null")
    if order is None:
        return 0
    with _wake_up() as woken:
        _adopt_orphans()
        try:
            engine = subprocess.Popen(
                order["command"],
                env=order["env"],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_guard,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            print(f"cannot launch {order['command'][0]}: {error.strerror}", flush=True)  # noqa: T201
            return CANNOT_LAUNCH
        while engine.poll() is None:
            ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
            if sys.stdin.fileno() in ready or os.read(woken, 4096).strip(_SIGCHLD):
                break
        _end(engine, order["grace_s"])
    return engine.returncode if engine.returncode >= 0 else 128 - engine.returncode


_SIGCHLD = bytes([signal.SIGCHLD])


@contextlib.contextmanager
def _wake_up() -> Iterator[int]:
    """Give a descriptor that becomes readable when a signal arrives: one byte, its number."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    yield readable


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none gets out of sight."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_guard() -> None:
    """In the engine's process: be killed when the guard itself is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end(engine: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the engine's group and every descendant that left it."""
    deadline = time.monotonic() + grace_s
    _signal_all(engine, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        engine.wait(grace_s)
    psutil.wait_procs(_others(engine), timeout=max(0.0, deadline - time.monotonic()))
    while engine.poll() is None or _others(engine):
        _signal_all(engine, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(0.1)
        psutil.wait_procs(_others(engine), timeout=0.1)


def _signal_all(engine: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(engine.pid, number)
    for process in _others(engine):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _others(engine: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return all descendants but the engine, whose exit status is for `Popen` alone to take."""
    return [each for each in psutil.Process().children(recursive=True) if each.pid != engine.pid]


if __name__ == "__main__":
    sys.exit(main())
