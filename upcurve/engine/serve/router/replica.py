"""A server behind the router: whether it is up, what it has to do, and connections to it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from upcurve.engine.errors import EngineInputError

if TYPE_CHECKING:
    from upcurve.engine.serve.router.restarts import History
    from upcurve.engine.serve.router.upstream import Upstream

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
IDLE_CONNECTIONS = 256
"""Kept for the next request; more are closed."""


@dataclass(slots=True, eq=False)
class Replica:
    """One server of the model."""

    url: str
    host: str
    port: int
    up: bool = False
    """Whether it is in rotation: its last check was answered."""
    open: int = 0
    """Requests that it has and has not answered in full."""
    idle: deque[Upstream] = field(default_factory=deque)
    history: History | None = None
    """Of its process; None where somebody else runs it."""

    @classmethod
    def at(cls, url: str) -> Replica:
        """Return the replica at http://HOST:PORT.

        Raises:
            EngineInputError: it is no such address.
        """
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or port == 0 or parts.path not in ("", "/"):
            raise EngineInputError("replicas", f"{url!r} is no address", "give http://HOST:PORT")
        return cls(f"http://{parts.netloc}", parts.hostname, port or 80)

    async def connect(self) -> Upstream:
        """Return a new connection.

        Raises:
            OSError: there is none within `CONNECT_SECONDS`.
        """
        from upcurve.engine.serve.router.upstream import Upstream

        async with asyncio.timeout(CONNECT_SECONDS):
            _, upstream = await asyncio.get_running_loop().create_connection(
                lambda: Upstream(self), self.host, self.port
            )
        return upstream

    def take_idle(self) -> Upstream | None:
        """Return a connection that has served before; None where there is none."""
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.closed:
                return upstream
        return None

    def put_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        if len(self.idle) >= IDLE_CONNECTIONS:
            upstream.close()
        else:
            self.idle.append(upstream)

    def set_up(self, up: bool, why: str = "") -> None:
        """Take it into rotation, or out of it; say so where that is news."""
        if up != self.up:
            self.up = up
            logger.info("replica %s is %s", self.url, "up" if up else f"down: {why}")
