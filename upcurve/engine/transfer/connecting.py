"""From an offer to a link: which transport, and hello."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from upcurve.engine.parallel.mapping import host_identity
from upcurve.engine.transfer import frames
from upcurve.engine.transfer.description import VERSION
from upcurve.engine.transfer.device_copy import CopyLink
from upcurve.engine.transfer.frames import Frame
from upcurve.engine.transfer.link import Ends, Link, Transfer
from upcurve.engine.transfer.nixl import Agent, NixlLink, Remote
from upcurve.engine.transfer.offer import Offer
from upcurve.engine.transfer.resharding import Route
from upcurve.engine.transfer.tcp import TcpLink
from upcurve.engine.transfer.transport import Transport
from upcurve.engine.transfer.views import CacheViews

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
_MEND = "give both the same --transfer"


def connect(
    route: Route,
    source: CacheViews,
    page_size: int,
    session: str,
    data: bytes,
    transport: Transport,
    *,
    patience: float,
    written: Callable[[Link, Transfer], None],
    broke: Callable[[Link, str], None],
) -> Link:
    """Connect to one decode rank.

    Args:
        route: what is sent to it.
        source: caches that it is sent from.
        page_size: tokens of a page.
        session: name of this connection of the two engines.
        data: its offer.
        transport: "auto" falls back to TCP, and logs why where a copy should have worked.
        patience: seconds that TCP and NIXL wait for the rank to take or say something.
        written: as `Link`.
        broke: as `Link`.

    Raises:
        OSError: it cannot be reached, refuses, or cannot do what was asked for.
    """
    offer = Offer.decode(data)
    if offer.rank != route.target:
        raise OSError(f"the offer of rank {offer.rank} came for that of rank {route.target}")
    ends = Ends(route, source, page_size, offer, written, broke)
    if transport == "nixl":
        agent, remote = _known(source, offer)
        here = host_identity()
        process = os.getpid() if here and remote.reach.host == here else 0
        try:
            connection = _hello(offer, session, route, process, remote.reach.agent)
        except BaseException:
            agent.close()
            raise
        return NixlLink(ends, agent, remote, connection, patience)
    if offer.reach is not None:
        raise OSError(f"the decode rank asks for NIXL: {_MEND}")
    target = None if transport == "tcp" else _mapped(source, offer, forced=transport == "copy")
    connection = _hello(offer, session, route, os.getpid() if target is not None else 0)
    if target is not None:
        return CopyLink(ends, target, connection)
    return TcpLink(ends, connection, patience)


def _known(source: CacheViews, offer: Offer) -> tuple[Agent, Remote]:
    """Register the own caches, and know a decode rank's.

    Raises:
        OSError: one cannot be.
    """
    if offer.reach is None:
        raise OSError(f"the decode rank offers no NIXL: {_MEND}")
    agent = Agent(source)
    try:
        name = agent.api.add_remote_agent(offer.reach.metadata)
    except Exception as error:
        agent.close()
        raise OSError(f"nixl: {type(error).__name__}: {error}") from error
    return agent, Remote(name if isinstance(name, str) else name.decode(), offer.reach)


def _mapped(source: CacheViews, offer: Offer, *, forced: bool) -> CacheViews | None:
    """Map the caches of a decode rank; None where they cannot be and need not."""
    exports = offer.exports
    if exports is None:
        problem = f"the decode rank offers none: {_MEND}"
    elif exports.host != host_identity():
        problem = "the decode rank is on another host"
    elif offer.device != source.device.type:
        problem = f"caches are on {source.device.type} here, on {offer.device} there"
    else:
        try:
            return exports.open()
        except (OSError, RuntimeError) as error:
            # The driver's words are long; their beginning says what it is.
            problem = f"mapping failed: {str(error).splitlines()[0]}"
            if not forced:
                logger.warning("transfers use tcp instead of device copies: %s", problem)
    if forced:
        raise OSError(f"device copies are not possible: {problem}")
    return None


def _hello(
    offer: Offer, session: str, route: Route, process: int, agent: str = ""
) -> socket.socket:
    connection = socket.create_connection((offer.host, offer.port), CONNECT_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        frames.send(
            connection,
            Frame(
                *(frames.HELLO, session, route.source, route.target, process, VERSION),
                rows=agent.encode(),
            ),
        )
        answer = frames.receive(connection)
        if answer is None or answer.kind != frames.DONE:
            reason = "it is no decode rank" if answer is None else answer.text
            raise OSError(f"decode rank {offer.rank} refuses: {reason}")
    except frames.BrokenFrameError as error:
        connection.close()
        raise OSError(f"{offer.host}:{offer.port} is no decode rank: {error}") from error
    except BaseException:
        with suppress(OSError):
            frames.send(connection, Frame(frames.BYE))
        connection.close()
        raise
    connection.settimeout(None)
    return connection
