"""An engine that a recipe launched: its process, its readiness, its end."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from upcurve.errors import InputError

GRACE_S = 10.0
"""Seconds that an engine has to end by itself before it is killed."""

LAST_LINES = 12
"""Lines of the log that an error shows."""


_PORTS = range(20_000, 30_000)
_TRIES = 1_000


class EngineError(Exception):
    """The engine did not start, did not become ready, died, or does not end."""


@contextlib.contextmanager
def free_port(host: str) -> Iterator[int]:
    """Give a TCP port that nothing listens on, to a server that is about to start.

    It is none of those that a system deals out by itself (from 32768 on Linux, 49152 on macOS):
    between this and the server's start no connection of another program gets it. Nor does another
    block of this function, which holds the UDP port of the same number until it ends.

    Raises:
        OSError: there is no such host, or no port is free.
    """
    for _ in range(_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket(type=socket.SOCK_DGRAM) as sign, socket.socket() as probe:
            try:
                sign.bind((host, port))
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            probe.close()
            yield port
            return
    raise OSError(errno.EADDRINUSE, f"no port of {_PORTS[0]} to {_PORTS[-1]} is free on {host}")


def executable(command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Return the command line with its program as an absolute path.

    `upcurve` is always the build that runs the sweep, installed on the PATH or not.

    Args:
        command: the program and its arguments.
        env: the engine's whole environment, whose PATH is searched.

    Raises:
        InputError: there is no such program.
    """
    program, *arguments = command
    if program == "upcurve":
        return [sys.executable, "-m", "upcurve", *arguments]
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        mend = "install it, or give its path in the command"
        raise InputError("engine.command", f"there is no program '{program}'", mend)
    return [str(Path(found).absolute()), *arguments]


class EngineProcess:
    """A launched engine under its guard; leaving the `with` block ends it."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        """Launch the engine; everything it prints goes to `log`.

        Args:
            command: the program and its arguments.
            env: the engine's whole environment.
            log: file to write; its folder exists.
            grace_s: seconds between SIGTERM and SIGKILL.
        """
        self.log = log
        self._grace_s = grace_s
        with log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", "upcurve.sweep.guard"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the sweep alone
            )
        order = {"command": list(command), "env": dict(env), "grace_s": grace_s}
        assert self._guard.stdin is not None
        self._hold = self._guard.stdin
        with contextlib.suppress(BrokenPipeError):
            self._hold.write(json.dumps(order).encode() + b"\n")
            self._hold.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except EngineError:
            # What ended the block, Ctrl-C for one, matters more.
            if error is None:
                raise

    @property
    def running(self) -> bool:
        """Whether the engine lives."""
        return self._guard.poll() is None

    def wait_until_ready(self, host: str, port: int, path: str, timeout_s: float) -> float:
        """Wait until the engine answers HTTP 200, and return the seconds that it took.

        Raises:
            EngineError: it died or took too long; the message ends with its last lines.
        """
        started = time.monotonic()
        answer = "no answer"
        while time.monotonic() - started < timeout_s:
            answer = _ask(host, port, path)
            self.check()
            if answer == "HTTP 200":
                return time.monotonic() - started
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(0.1)
        raise EngineError(
            f"it was not ready after {timeout_s:g} s (last: {answer} from {path})" + self._tail()
        )

    def check(self) -> None:
        """Raise `EngineError`, with the log's last lines, where the engine has died."""
        status = self._guard.poll()
        if status is not None:
            raise EngineError(f"it {_end_in_words(status)}" + self._tail())

    def wait(self) -> None:
        """Wait until it ends by itself, as a command does that is no server.

        Raises:
            EngineError: its status is not 0; the message ends with its last lines.
        """
        if self._guard.wait() != 0:
            self.check()

    def stop(self) -> None:
        """End the engine and all its descendants; it may have ended already.

        Raises:
            EngineError: it does not end, not even when it is killed.
        """
        with contextlib.suppress(BrokenPipeError):
            self._hold.close()
        try:
            self._guard.wait(self._grace_s + 30)
        except subprocess.TimeoutExpired as error:
            raise EngineError("it does not end, not even when killed") from error

    def _tail(self) -> str:
        lines = last_lines(self.log)
        return (
            f"; its last lines ({self.log}):\n" + "\n".join(lines) if lines else " and said nothing"
        )


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """Return the last lines of a log that are not blank, however long the log is."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 64 * 1024))
        text = file.read().decode("utf-8", errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def _ask(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return f"HTTP {connection.getresponse().status}"
    except (OSError, http.client.HTTPException):
        return "no answer"
    finally:
        connection.close()


def _end_in_words(status: int) -> str:
    number = status - 128 if status > 128 else -status
    if number > 0 and number in set(signal.Signals):
        return f"was ended by {signal.Signals(number).name}"
    return f"ended with status {status}"
