"""The dashboard's process: bind, serve, stop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

import uvicorn

from upcurve.dashboard.ahead import work_ahead
from upcurve.dashboard.app import create_app
from upcurve.dashboard.events import Feed
from upcurve.dashboard.guard import is_address
from upcurve.dashboard.reader import Reader
from upcurve.errors import InputError
from upcurve.records.store import Store

CLOSE_SECONDS = 1
"""How long open streams have after Ctrl-C."""


def serve(
    store: Store,
    *,
    host: str,
    port: int,
    token: str | None,
    names: Iterable[str],
    ready: Callable[[str], None],
) -> None:
    """Serve the dashboard of a store until SIGINT or SIGTERM.

    Args:
        store: what it shows.
        host: name or address to listen on.
        port: 0 picks a free one.
        token: what writers have to send; None turns writing off.
        names: further host names that it may be asked under.
        ready: is told its URL once it listens.

    Raises:
        InputError: the address cannot be bound.
    """
    with _bound(host, port) as listener:
        reader = Reader(store)
        own = [] if is_address(host) else [host]
        app = create_app(reader, token=token, names=[*own, socket.gethostname(), *names])
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        threading.Thread(target=work_ahead, args=(reader,), daemon=True).start()
        # uvicorn ends in order and then raises the signal once more.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            with suppress(KeyboardInterrupt):
                ready(_url(host, listener.getsockname()[1]))
                _Server(config, app.state.feed).run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)


class _Server(uvicorn.Server):
    """Ends the streams of events first: they would be waited for, then cancelled."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and let what is under way end."""
        self._feed.close()
        await super().shutdown(sockets)


def _bound(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        mend = "name an address of this machine"
        raise InputError("host", f"{host}: {error.strerror}", mend) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            "port", f"{host}:{port}: {error.strerror}", "give another --port, or 0 for a free one"
        ) from error
    return listener


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
