"""Connections to one server: opened where none is free, kept between requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

from upcurve.load.answer import excerpt
from upcurve.load.connection import Connection, Exchange
from upcurve.load.target import Target

_IDLE_NS = 4_000_000_000  # below the 5 s after which uvicorn closes an idle connection
_CONNECT_S = 30.0  # a host that drops packets would else hold a request for the whole timeout
TLS_FAILURE = "TLS: "
"""What the detail of a failed handshake begins with."""


class ConnectError(Exception):
    """No connection to the server; the message says why."""


class Pool:
    """The connections of one process to one target."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._free: list[Connection] = []
        self._addresses: list[tuple[str, int]] | None = None
        self._context = ssl.create_default_context() if target.tls else None

    async def exchange(self, exchange: Exchange, payload: bytes) -> None:
        """Send a request on a free connection or a new one, and read its answer to the end.

        Stamps `sent_ns` first: the time of a connect is the request's, as the user's would be.
        What goes wrong is noted in the exchange, which still has to be settled.
        """
        exchange.sent_ns = time.perf_counter_ns()
        timer = None
        connection: Connection | None = None
        try:
            connection = self._take()
            if connection is None:
                exchange.new_connection = True
                connection = await self._connect()
            timer = self._timer(connection, exchange)
            await connection.carry(exchange, payload)
            unread = exchange.failure == "cut" and exchange.first_byte_ns is None
            if unread and not exchange.new_connection:
                # The server had closed it, idle, before the request came: a new one decides.
                exchange.failure = exchange.detail = None
                exchange.new_connection = True
                timer.cancel()
                connection = await self._connect()
                timer = self._timer(connection, exchange)
                await connection.carry(exchange, payload)
        except ConnectError as error:
            exchange.fail("connect", str(error))
            exchange.ended_ns = time.perf_counter_ns()
        finally:
            if timer is not None:
                timer.cancel()
            if connection is not None and connection.reusable:
                self._free.append(connection)

    def close(self) -> None:
        """Close all free connections."""
        while self._free:
            self._free.pop().close()

    def _take(self) -> Connection | None:
        oldest_ns = time.perf_counter_ns() - _IDLE_NS
        while self._free:
            connection = self._free.pop()
            if connection.reusable and connection.idle_since_ns > oldest_ns:
                return connection
            connection.close()
        return None

    def _timer(self, connection: Connection, exchange: Exchange) -> asyncio.TimerHandle:
        left_s = self._timeout_s - (time.perf_counter_ns() - exchange.sent_ns) / 1e9
        loop = asyncio.get_running_loop()
        return loop.call_later(left_s, self._expire, connection, exchange)

    def _expire(self, connection: Connection, exchange: Exchange) -> None:
        exchange.fail("timeout", f"no end within {self._timeout_s:g} s")
        exchange.ended_ns = time.perf_counter_ns()
        connection.expire()

    async def _connect(self) -> Connection:
        within_s = min(_CONNECT_S, self._timeout_s)
        try:
            async with asyncio.timeout(within_s):
                return await self._connect_any()
        except TimeoutError:
            raise ConnectError(f"no connection within {within_s:g} s") from None
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise ConnectError(excerpt(f"{TLS_FAILURE}{error}".encode())) from None
        except (OSError, UnicodeError) as error:  # a host that is no name has no IDNA form
            raise ConnectError(excerpt(str(error).encode())) from None

    async def _connect_any(self) -> Connection:
        """Connect to the first address that answers."""
        host, port = self._target.via or (self._target.host, self._target.port)
        if self._addresses is None:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._addresses = [(str(each[4][0]), int(each[4][1])) for each in found]
        failure: OSError | None = None
        for place, (address, number) in enumerate(self._addresses):
            try:
                connection = await self._connect_to(address, number)
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = failure or error
            else:
                self._addresses.insert(0, self._addresses.pop(place))
                return connection
        raise failure or OSError(f"{host} has no address")

    async def _connect_to(self, address: str, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        name = self._target.host if self._context else None
        if self._target.via is None or self._context is None:
            _, connection = await loop.create_connection(
                Connection, address, port, ssl=self._context, server_hostname=name
            )
            return connection
        transport, tunnel = await loop.create_connection(
            lambda: _Tunnel(self._target), address, port
        )
        try:
            await tunnel.opened
        except BaseException:
            transport.abort()
            raise
        connection = Connection()
        encrypted = await loop.start_tls(transport, connection, self._context, server_hostname=name)
        assert encrypted is not None, "the transport is open"
        connection.connection_made(encrypted)
        return connection


class _Tunnel(asyncio.Protocol):
    """Asks a proxy to pass an encrypted connection on."""

    def __init__(self, target: Target) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._target = target
        self._said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        authority = self._target.authority
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self._target.proxy_authorization:
            lines.append(f"Proxy-Authorization: {self._target.proxy_authorization}")
        transport.write("\r\n".join([*lines, "", ""]).encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._said += data
        head, end, _ = self._said.partition(b"\r\n\r\n")
        if not end or self.opened.done():
            return
        status = head.split(b"\r\n", 1)[0]
        if status.split(b" ")[1:2] == [b"200"]:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(OSError(f"the proxy says {excerpt(status)}"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or OSError("the proxy closed the connection"))
