"""What the load client can carry on this machine, as a calibration found it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

import upcurve
from upcurve.files import write_whole

TRUSTED_SHARE = 0.5
"""Share of the limit up to which a point is trusted: beyond half of it queueing shows."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a calibration holds for; another machine or another client needs its own."""

    node: str
    cpu: str
    cores: int
    python: str
    upcurve: str
    workers: int
    """Measuring processes at most."""

    @classmethod
    def this(cls, workers: int) -> Self:
        """Return this machine, with so many measuring processes."""
        return cls(
            node=platform.node(),
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)),
            python=platform.python_version(),
            upcurve=upcurve.__version__,
            workers=workers,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The result of a calibration."""

    machine: Machine
    measured_at: str
    """ISO 8601, UTC."""
    chunks_per_s: float
    """Highest rate of chunks (tokens, where each comes alone) that was read with true times, with
    the server of known timing on the same machine: a server elsewhere leaves more."""
    streams: int
    """Most streams that were read with true times."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What was measured, one row per number of streams."""

    def share(self, chunks_per_s: float) -> float:
        """Return the client's load as a share of its limit."""
        return chunks_per_s / self.chunks_per_s

    def facts(self) -> dict[str, Any]:
        """Return what every point carries."""
        return {
            "measured_at": self.measured_at,
            "chunks_per_s": self.chunks_per_s,
            "streams": self.streams,
            **asdict(self.machine),
        }

    def save(self, path: Path) -> None:
        """Write the limits, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(self)) + b"\n"
        write_whole(path, lambda file: file.write(text))

    @classmethod
    def load(cls, path: Path, machine: Machine) -> Self | None:
        """Return the limits of this machine; None where there are none, or they are another's."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.machine == machine else None


def default_path() -> Path:
    """Return where limits are kept: UPCURVE_CALIBRATION, else in the user's state folder."""
    if named := os.environ.get("UPCURVE_CALIBRATION"):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "upcurve" / "calibration.json"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
