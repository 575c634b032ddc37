"""The server itself: its endpoints, its slots, and the account of what it did."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import orjson

from upcurve.errors import InputError
from upcurve.load.known_server.behaviour import Behaviour
from upcurve.load.known_server.connection import Connection, Request
from upcurve.load.known_server.request import (
    CHAT,
    COMPLETIONS,
    Asked,
    RefusedError,
    read_request,
)
from upcurve.load.known_server.stream import Stream
from upcurve.load.known_server.ticker import Ticker
from upcurve.load.known_server.truth import Served
from upcurve.load.known_server.wire import Events, error_body, stream_head, whole_answer

_BACKLOG = 65535  # a burst of new connections must not wait for the kernel's second try
_KINDS_OF_EVENTS = 64  # that are kept ready-made
_METHODS = {
    COMPLETIONS: "POST",
    CHAT: "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/metrics": "GET",
}


class KnownServer:
    """The server, in the running event loop, while its context is entered.

    Raises:
        InputError: the certificate or its key cannot be used, or the address cannot be had.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
    ) -> None:
        self.served: list[Served] = []
        """In the order of arrival; requests that were refused for their content are not there."""
        self.connections: set[Connection] = set()
        self._behaviour = behaviour
        self._address = host, port
        self._tls = _tls(certificate, key)
        self._ticker: Ticker
        self._server: asyncio.Server
        self._events: dict[tuple[object, ...], Events] = {}
        self._computed: set[Stream] = set()
        self._waiting: deque[Stream] = deque()
        self._ended_tokens = 0

    async def __aenter__(self) -> Self:
        self._ticker = Ticker(self._end)
        host, port = self._address
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self), host, port, backlog=_BACKLOG, ssl=self._tls
            )
        except OSError as error:
            problem = f"cannot listen on {host}:{port} ({error.strerror or error})"
            raise InputError("port", problem, "choose another, or 0 for any") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        while self.connections:  # which leave as the event loop tells them
            for connection in self.connections:
                connection.abort()
            await asyncio.sleep(0)
        self._ticker.close()
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        host, port = self._server.sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self._tls else ''}://{shown}:{port}"

    def answer(self, connection: Connection, request: Request) -> None:
        """Answer a request, or begin to."""
        try:
            self._check(request)
            if request.method == "POST":
                asked = read_request(request.path, b"".join(request.body), self._behaviour)
                self._serve(connection, request, asked)
                return
        except RefusedError as refused:
            body, status = error_body(refused), refused.status
        else:
            body, status = self._facts(request.path), 200
        kind = b"text/plain; version=0.0.4" if request.path == "/metrics" else b"application/json"
        connection.write(whole_answer(status, body, keep=connection.keep, kind=kind))
        connection.done()

    def left(self, stream: Stream) -> None:
        """Give up an answer that no one reads."""
        stream.gone = True
        stream.served.left_ns = time.perf_counter_ns()
        if stream in self._computed:
            self._free_slot(stream)
        else:
            self._waiting.remove(stream)

    def _check(self, request: Request) -> None:
        method = _METHODS.get(request.path)
        if method is None:
            raise RefusedError(404, f"there is no {request.path}")
        if request.method != method:
            raise RefusedError(405, f"{request.path} takes {method}")
        key = self._behaviour.api_key
        if key and request.path.startswith("/v1/") and request.authorization != f"Bearer {key}":
            raise RefusedError(401, "invalid key")

    def _facts(self, path: str) -> bytes:
        if path == "/v1/models":
            model = {"id": self._behaviour.model, "object": "model", "owned_by": "upcurve"}
            length = {"max_model_len": self._behaviour.context_length}
            return orjson.dumps({"object": "list", "data": [model | length]})
        if path == "/health":
            return b"{}"
        tokens = self._ended_tokens + sum(each.served.tokens for each in self._computed)
        return (
            "# TYPE known_requests_running gauge\n"
            f"known_requests_running {len(self._computed)}\n"
            "# TYPE known_requests_waiting gauge\n"
            f"known_requests_waiting {len(self._waiting)}\n"
            "# TYPE known_requests_total counter\n"
            f"known_requests_total {len(self.served)}\n"
            "# TYPE known_tokens_total counter\n"
            f"known_tokens_total {tokens}\n"
        ).encode()

    def _serve(self, connection: Connection, request: Request, asked: Asked) -> None:
        known, number = self._behaviour, len(self.served) + 1
        fault = next((each for each in known.faults if number % each.every == 0), None)
        served = Served(
            arrived_ns=request.arrived_ns,
            prompt_tokens=asked.prompt_tokens,
            prompt_digest=asked.prompt_digest,
            warm=connection.carried,
            in_flight=len(self._computed) + len(self._waiting) + 1,
            fault=fault.kind if fault else None,
            endpoint=asked.endpoint,
            asked_tokens=asked.tokens,
        )
        self.served.append(served)
        connection.carried = True
        if served.fault in ("http_429", "http_500"):
            refused = RefusedError(int(served.fault[-3:]), "a fault as ordered")
            body = error_body(refused)
            connection.write(whole_answer(refused.status, body, keep=connection.keep))
            served.ended_ns = time.perf_counter_ns()
            connection.done()
            return
        jitter = Random(known.seed * 2**32 + number) if known.jitter_ms else None  # noqa: S311
        stall_ms = fault.stall_ms if fault else 0.0
        events = self._events_of(asked)
        stream = Stream(asked, served, known, events, jitter, stall_ms, connection)
        connection.stream = stream
        if asked.stream:
            connection.write(stream_head(keep=connection.keep))
        self._waiting.append(stream)
        self._fill_slots(max(request.arrived_ns, connection.free_ns))

    def _events_of(self, asked: Asked) -> Events:
        counted = asked.prompt_tokens if asked.continuous_usage else None
        likeness = (asked.endpoint, asked.ids, counted)
        if likeness not in self._events:
            if len(self._events) == _KINDS_OF_EVENTS:
                self._events.clear()
            self._events[likeness] = Events(asked, self._behaviour)
        return self._events[likeness]

    def _fill_slots(self, start_ns: int) -> None:
        slots = self._behaviour.slots
        while self._waiting and (slots is None or len(self._computed) < slots):
            stream = self._waiting.popleft()
            beside = len(self._computed)
            self._computed.add(stream)
            self._ticker.add(stream.begin(start_ns, beside), stream)

    def _free_slot(self, stream: Stream) -> None:
        self._computed.remove(stream)
        self._ended_tokens += stream.served.tokens
        self._fill_slots(time.perf_counter_ns())

    def _end(self, stream: Stream) -> None:
        if stream.gone:
            return
        stream.end()
        connection = stream.sink
        assert isinstance(connection, Connection), "streams are made for connections"
        connection.done()
        self._free_slot(stream)


def _tls(certificate: Path | str | None, key: Path | str | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None:
        raise InputError("certificate", "a key without a certificate", "give both")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        problem = f"{certificate} and its key cannot be used ({error.strerror or error})"
        raise InputError("certificate", problem, "give PEM files that belong together") from error
    return context
