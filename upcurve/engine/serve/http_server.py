"""The server of HTTP: signals, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

import uvicorn

from upcurve.engine.serve.app import Server
from upcurve.engine.serve.bridge import Bridge
from upcurve.engine.serve.connection import Connection

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 5
"""How long clients have afterwards to read what was sent to them."""


class Watch(Protocol):
    """Watches other processes, and starts those anew that end."""

    def close(self) -> None:
        """Start nothing any more; a second call does nothing."""


class HttpServer(uvicorn.Server):
    """uvicorn, with an orderly end: requests may finish for a while, then they are aborted."""

    def __init__(
        self,
        server: Server,
        bridge: Bridge,
        drain_seconds: float,
        ready: Callable[[], None],
        watch: Callable[[], Watch] | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            server: answers requests.
            bridge: to its engine.
            drain_seconds: how long requests may go on after a signal.
            ready: called once requests are taken.
            watch: called on the event loop once requests are taken; what it returns is closed
                once no more are. None watches nothing.
        """
        super().__init__(
            uvicorn.Config(
                server.app(),
                http=Connection,
                access_log=False,
                log_config=None,
                log_level="warning",
                lifespan="on",
                # Longer than clients keep idle connections (5 s in httpx, 15 s in aiohttp): if the
                # server closed first, a request that is on its way would be lost.
                timeout_keep_alive=75,
                # Only for clients that do not read: the requests themselves end before.
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self._bridge = bridge
        self._drain_seconds = drain_seconds
        self._ready = ready
        self._drain: asyncio.Task[None] | None = None
        self._watch = watch
        self._watching: Watch | None = None
        bridge.on_failure = self._stop

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Drain on SIGTERM and SIGINT; unlike uvicorn's own, the process then ends with 0."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for each in signals:
            loop.add_signal_handler(each, self.drain)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        # What is loaded stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        if self._watch is not None:
            self._watching = self._watch()
        self._ready()

    def drain(self) -> None:
        """Refuse new requests, let the others finish for a while, stop; at once if repeated."""
        if self._bridge.draining:
            self._stop()
            return
        self._leave()
        self._bridge.draining = True
        self._drain = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        idle = asyncio.Event()
        self._bridge.on_idle = idle.set
        if self._bridge.open_requests:
            logger.info("waiting for %d requests", self._bridge.open_requests)
            try:
                await asyncio.wait_for(idle.wait(), self._drain_seconds)
            except TimeoutError:
                logger.info("aborting %d requests", self._bridge.open_requests)
        self._stop()

    def _leave(self) -> None:
        if self._watching is not None:
            self._watching.close()

    def _stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the engine, with the requests that are left, then the connections."""
        self._leave()
        if self._drain is not None:
            self._drain.cancel()
        await self._bridge.stop()
        await super().shutdown(sockets)
