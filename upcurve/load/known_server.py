"""A server of known timing: what it wrote, and when, is the truth that a client is held against."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal, Self

import orjson
from aiohttp import web

FaultKind = Literal[
    "http_429",
    "http_500",
    "error_event",
    "cut",
    "no_done",
    "garbage",
    "empty",
    "short",
    "long",
    "stall",
    "burst",
]
"""What goes wrong: an error status; after half of the tokens an error inside the stream, a broken
connection, an orderly end without [DONE], an event that is no JSON; an answer without tokens; half
of the tokens, or half as many again, as if they were all; a pause after half of the tokens; all
chunks in one write at the end, as a buffering proxy has it."""

_WORD = " token"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with every `every`-th request, in the order of arrival."""

    kind: FaultKind
    every: int
    stall_ms: float = 1000.0
    """Length of a stall."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the server does, to the millisecond."""

    first_ms: float = 100.0
    """From the arrival of a request to its first token."""
    interval_ms: float = 20.0
    """From one token to the next."""
    tokens_per_chunk: int = 1
    """Tokens that are sent together, when the last of them is there."""
    faults: tuple[Fault, ...] = ()
    """The first one that hits a request is what happens to it."""
    model: str = "known"
    api_key: str | None = None
    context_length: int = 2**20
    ids: Literal["sent", "ignored", "refused"] = "sent"
    """What becomes of `return_token_ids`; refused: an unknown field is answered with 400."""
    usage: bool = True
    extra_prompt_tokens: int = 0
    """What the server adds to every prompt, as a begin-of-sequence token."""
    cached_share: float = 0.0
    """Share of the prompt that usage says came from the prefix cache."""


@dataclass(slots=True)
class Served:
    """What the server really did with one request; times in ns of the machine's monotonic clock."""

    arrived_ns: int
    prompt_tokens: int
    prompt_digest: str
    warm: bool
    """Whether its connection had carried a request before."""
    in_flight: int
    """Requests in the server with this one."""
    fault: FaultKind | None = None
    written_ns: list[int] = field(default_factory=list)
    """Just before each chunk with tokens was written."""
    written_tokens: list[int] = field(default_factory=list)
    ended_ns: int | None = None
    """None where the client left first."""


class KnownServer:
    """The server, in the running event loop, while its context is entered."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.served: list[Served] = []
        """In the order of arrival; requests that were refused for their content are not there."""
        self._behaviour = behaviour
        self._arrivals = 0
        self._in_flight = 0
        self._connections: set[int] = set()
        application = web.Application(client_max_size=2**28)
        application.router.add_post("/v1/completions", self._completions)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.1).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        arrived_ns = time.perf_counter_ns()
        asked = orjson.loads(await request.read())
        refused = self._refusal(request, asked)
        if refused is not None:
            return _error(*refused)
        self._in_flight += 1
        served = self._serve(request, asked, arrived_ns)
        self.served.append(served)
        try:
            if served.fault in ("http_429", "http_500"):
                answer: web.StreamResponse = _error(int(served.fault[-3:]), "a fault as ordered")
            else:
                answer = await self._stream(request, asked, served)
            served.ended_ns = time.perf_counter_ns()
        except ConnectionResetError:  # the client left before the server noticed
            answer = web.Response()
        finally:
            self._in_flight -= 1
        return answer

    def _refusal(self, request: web.Request, asked: dict[str, Any]) -> tuple[int, str] | None:
        known = self._behaviour
        if known.api_key and request.headers.get("Authorization") != f"Bearer {known.api_key}":
            return 401, "invalid key"
        if asked["model"] != known.model:
            return 404, f"the model {asked['model']} does not exist"
        if known.ids == "refused" and "return_token_ids" in asked:
            return 400, "extra field return_token_ids"
        if len(asked["prompt"]) + asked["max_tokens"] > known.context_length:
            return 400, f"longer than the context of {known.context_length} tokens"
        return None

    def _serve(self, request: web.Request, asked: dict[str, Any], arrived_ns: int) -> Served:
        self._arrivals += 1
        faults = (each for each in self._behaviour.faults if self._arrivals % each.every == 0)
        fault = next(faults, None)
        connection = id(request.transport)
        warm = connection in self._connections
        self._connections.add(connection)
        prompt = asked["prompt"]
        return Served(
            arrived_ns=arrived_ns,
            prompt_tokens=len(prompt),
            prompt_digest=hashlib.sha256(orjson.dumps(prompt)).hexdigest(),
            warm=warm,
            in_flight=self._in_flight,
            fault=fault.kind if fault else None,
        )

    async def _stream(
        self, request: web.Request, asked: dict[str, Any], served: Served
    ) -> web.StreamResponse:
        known, fault = self._behaviour, served.fault
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        total = asked["max_tokens"]
        half = max(1, total // 2)
        whole = {"empty": 0, "long": total + half}
        tokens = total if fault in (None, "stall", "burst") else whole.get(fault, half)
        held = b""
        delay_ms = known.first_ms
        written = 0
        while written < tokens:
            count = min(known.tokens_per_chunk, tokens - written)
            if fault == "stall" and written <= half < written + count:
                delay_ms += next(each for each in known.faults if each.kind == fault).stall_ms
            due_ms = delay_ms + (written + count - 1) * known.interval_ms
            await asyncio.sleep(due_ms / 1e3 - (time.perf_counter_ns() - served.arrived_ns) / 1e9)
            written += count
            last = written == tokens and fault in (None, "short", "long", "stall", "burst")
            chunk = _event(asked, known, written - count, count, "length" if last else None)
            held += chunk
            if fault == "burst" and written < tokens:
                continue
            served.written_ns.append(time.perf_counter_ns())
            served.written_tokens.append(written - sum(served.written_tokens))
            await response.write(held)
            held = b""
        if fault == "cut":
            assert request.transport is not None, "the client is still there"
            request.transport.abort()
        elif fault == "error_event":
            await response.write(b'data: {"error": {"message": "a fault as ordered"}}\n\n')
        elif fault == "garbage":
            await response.write(b"data: {no JSON\n\n")
        elif fault != "no_done":
            if known.usage:
                await response.write(_usage(known, served))
            await response.write(b"data: [DONE]\n\n")
        return response


@contextmanager
def known_server_process(behaviour: Behaviour) -> Iterator[tuple[str, list[Served]]]:
    """Run the server in a process of its own, so that it does not share the client's core.

    Yields:
        Its base URL, and a list that is filled with what it did when the context is left.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_until_told, args=(behaviour, theirs), daemon=True)
    process.start()
    theirs.close()
    served: list[Served] = []
    try:
        yield ours.recv(), served
        ours.send(None)
        served.extend(ours.recv())
    finally:
        ours.close()  # which ends the process
        process.join()


def _serve_until_told(behaviour: Behaviour, pipe: Connection) -> None:
    async def serve() -> None:
        told = asyncio.Event()
        async with KnownServer(behaviour) as server:
            asyncio.get_running_loop().add_reader(pipe.fileno(), told.set)
            pipe.send(server.base_url)
            await told.wait()
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            try:
                pipe.recv()
                pipe.send(server.served)
            except (EOFError, BrokenPipeError):  # the client's process is gone
                return

    import uvloop

    uvloop.run(serve())


def _event(
    asked: dict[str, Any], known: Behaviour, position: int, count: int, finish: str | None
) -> bytes:
    choice: dict[str, Any] = {"index": 0, "text": _WORD * count, "finish_reason": finish}
    if known.ids == "sent" and asked.get("return_token_ids"):
        choice["token_ids"] = list(range(position, position + count))
    return b"data: " + orjson.dumps({"object": "text_completion", "choices": [choice]}) + b"\n\n"


def _usage(known: Behaviour, served: Served) -> bytes:
    prompt = served.prompt_tokens + known.extra_prompt_tokens
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": sum(served.written_tokens),
        "prompt_tokens_details": {"cached_tokens": round(known.cached_share * prompt)},
    }
    event = {"object": "text_completion", "choices": [], "usage": usage}
    return b"data: " + orjson.dumps(event) + b"\n\n"


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)
