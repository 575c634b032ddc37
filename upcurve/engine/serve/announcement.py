"""What a command that serves says once: where requests are taken, and by which processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from upcurve.engine.parallel.layout import Layout

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A server that takes requests."""

    role: Literal["server", "prefill", "decode", "router", "ranks"]
    """`ranks` are those of another machine's server."""
    url: str | None
    """Of the API; None where it is another machine's."""
    model: str | None
    """What clients call it; None of a router, which asks its servers."""
    pid: int | None
    """Of the process that takes requests, and signals; None where it is not this command's."""
    layout: Layout | None
    """Of a replica that of all replicas; None of what only sends requests on."""
    processes: Mapping[str, int] = field(default_factory=dict)
    """Further ones of this server: `engine`, which has the leading rank, `rank 1`, ... -> pid."""
    transfers: str | None = None
    """HOST:PORT where decode workers connect to a prefill worker."""
    workers: tuple[Announcement, ...] = ()
    """Servers behind a router; prefill workers of a decode worker that has started them."""


Announce = Callable[[Announcement], None]


def log_ready(announcement: Announcement) -> None:
    """Say in the log where requests are taken."""
    logger.info("ready at %s", announcement.url)
