"""Start a server: bind, load, serve, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions, build_engine
from upcurve.engine.serve.app import Server
from upcurve.engine.serve.bridge import Bridge
from upcurve.engine.serve.chat import ChatTemplate
from upcurve.engine.serve.intake import Intake
from upcurve.engine.serve.metrics import Metrics
from upcurve.engine.serve.tokenizer import ByteTokenizer

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long requests may go on after SIGTERM or SIGINT."""


def serve(
    folder: Path,
    options: EngineOptions,
    *,
    host: str,
    port: int,
    model_name: str | None = None,
    api_key: str | None = None,
) -> int:
    """Serve a checkpoint folder until SIGTERM or SIGINT, or until the engine fails for good.

    Args:
        folder: with config.json, the weights, and for texts tokenizer.json.
        options: of the engine.
        host: name or address to listen on.
        port: 0 picks a free one.
        model_name: what clients call the model; None is the name of the folder.
        api_key: what clients have to send; None asks for nothing.

    Returns:
        The exit code: 0, or 1 if the engine was given up.

    Raises:
        EngineInputError: the address cannot be bound, or the model or an option is unusable.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="upcurve: %(message)s")
    with bind(host, port) as listener:
        tokenizer = ByteTokenizer.from_folder(folder)
        template = ChatTemplate.from_folder(folder)
        engine = build_engine(folder, options)
        logger.info(engine.description)
        metrics = Metrics()
        bridge = Bridge(engine, metrics)
        server = Server(
            bridge,
            metrics,
            Intake(engine, tokenizer, template),
            model_name=model_name or folder.resolve().name,
            api_key=api_key,
        )
        _listen(listener, host, port)
        http = HttpServer(server, bridge, host)
        http.run(sockets=[listener])
    if bridge.failure is not None:
        logger.error("the engine stopped: %s", bridge.failure)
        return 1
    return 0


def bind(host: str, port: int) -> socket.socket:
    """Take the port before a model is loaded; nobody can connect until it listens.

    Raises:
        EngineInputError: the host is unknown, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise EngineInputError(
            "host", f"{host!r} is unknown: {error}", "use 127.0.0.1 or 0.0.0.0"
        ) from error
    listener = socket.socket(family, kind, protocol)
    # Connections of a server that has just ended do not hold the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from error
    return listener


def _listen(listener: socket.socket, host: str, port: int) -> None:
    """Accept connections; only here two servers that were loading at once find each other."""
    try:
        listener.listen(2048)
    except OSError as error:
        raise _taken(host, port, error) from error


def _taken(host: str, port: int, error: OSError) -> EngineInputError:
    return EngineInputError(
        "port",
        f"{port} on {host} cannot be used: {error.strerror}",
        "give another --port, or 0 for any free one",
    )


class HttpServer(uvicorn.Server):
    """uvicorn, with an orderly end: requests may finish for a while, then they are aborted."""

    def __init__(self, server: Server, bridge: Bridge, host: str) -> None:
        super().__init__(
            uvicorn.Config(
                server.app(),
                access_log=False,
                log_config=None,
                log_level="warning",
                lifespan="on",
                # Longer than clients keep idle connections (5 s in httpx, 15 s in aiohttp): if the
                # server closed first, a request that is on its way would be lost.
                timeout_keep_alive=75,
                # Only for clients that do not read: the requests themselves end before.
                timeout_graceful_shutdown=int(GRACE_SECONDS) + 5,
            )
        )
        self._bridge = bridge
        self._host = host
        bridge.on_failure = self._give_up

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT; unlike uvicorn's own, the process then ends with 0."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for each in signals:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        for each in sockets or []:
            host = f"[{self._host}]" if ":" in self._host else self._host
            logger.info("ready at http://%s:%d", host, each.getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, let requests finish for a while, abort the rest."""
        abort = asyncio.ensure_future(self._abort_after_grace())
        await super().shutdown(sockets)
        abort.cancel()

    async def _abort_after_grace(self) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        logger.info("aborting the requests that are left")
        await self._bridge.stop()

    def _give_up(self) -> None:
        self.should_exit = True
