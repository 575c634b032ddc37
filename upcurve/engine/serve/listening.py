"""Ports that a server takes before it loads anything."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
from contextlib import AbstractContextManager, nullcontext

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.parallel.seat import Node

logger = logging.getLogger(__name__)

LASTING_PORTS = range(10_000, 20_000)
"""No system deals them out by itself: Linux does from 32768, macOS from 49152."""
_TRIES = 1_000


def bind(host: str, port: int, field: str = "port") -> socket.socket:
    """Take the port before a model is loaded; nobody can connect until it listens.

    Args:
        host: name or address.
        port: 0 picks a free one.
        field: what the user calls the port.

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
        raise _taken(host, port, error, field) from error
    return listener


def listen(listener: socket.socket, host: str, port: int) -> None:
    """Accept connections; only here two servers that were loading at once find each other."""
    try:
        listener.listen(2048)
    except OSError as error:
        raise _taken(host, port, error) from error


def _taken(host: str, port: int, error: OSError, field: str = "port") -> EngineInputError:
    return EngineInputError(
        field,
        f"{port} on {host} cannot be used: {error.strerror}",
        f"give another --{field}, or 0 for any free one",
    )


def listen_for_ranks(node: Node) -> socket.socket:
    """Listen where the ranks meet, on the node of the first one.

    Raises:
        EngineInputError: the port is taken or not allowed.
    """
    if not node.port:
        return socket.create_server((node.host, 0))
    # On all addresses: others may know this machine by one that is not its own.
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", node.port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise EngineInputError(
            "rendezvous",
            f"{node.port} cannot be listened on: {os.strerror(error.errno or 0)}",
            "give all nodes another port",
        ) from error


def listen_for_transfers(
    options: EngineOptions, host: str, port: int
) -> AbstractContextManager[socket.socket | None]:
    """Listen where decode workers connect to a prefill worker; others have no such port."""
    if options.role != "prefill":
        return nullcontext()
    listener = bind(host, port, "transfer-port")
    listener.listen()
    logger.info("decode workers connect to %s", host_and_port(host, listener))
    return listener


def listen_to_last(host: str) -> socket.socket:
    """Listen on a free port that can be listened on anew later: nobody gets it by chance meanwhile.

    Args:
        host: an address of this machine.

    Raises:
        EngineInputError: no port is free.
    """
    for _ in range(_TRIES):
        # Of those that are dealt out, even who looks for a server there may get that port itself.
        try:
            return socket.create_server((host, secrets.choice(LASTING_PORTS)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    first, last = LASTING_PORTS[0], LASTING_PORTS[-1]
    raise EngineInputError(
        "prefill-workers", f"no port of {first} to {last} is free on {host}", "free some"
    )


def host_and_port(host: str, listener: socket.socket) -> str:
    """Return HOST:PORT of what listens, with the name that it was given."""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{listener.getsockname()[1]}"
