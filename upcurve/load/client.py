"""The closed loop: a fixed number of streams, each sending its next request as one ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import aiohttp
import orjson

from upcurve.errors import InputError
from upcurve.load.answer import Answer, error_message, excerpt
from upcurve.load.health import ClientHealth, HealthProbe, frozen_garbage
from upcurve.load.target import Target
from upcurve.load.trace import Failure, RequestTrace
from upcurve.load.workload import Phase, Workload

STAGGER_S = 0.002
"""Between the first requests of two streams: a burst would queue in the client itself."""

_READ_BUFFER = 2**22  # 64 KB, the library's default, pauses reading at long contexts
_KEEP_ALIVE_S = 4.0  # below the 5 s after which uvicorn closes an idle connection
_CONNECT_S = 30.0  # a host that drops packets would else hold the probe for the whole timeout
_REFUSED_PAUSE_S = 0.05  # a refusal comes back at once: without a pause the loop would spin
_TLS = "TLS: "  # what the detail of a failed handshake begins with
_PARSE_SLICE = 32  # reads that are parsed between two turns of the event loop

Progress = Callable[[RequestTrace], None]
Result = TypeVar("Result")


async def probe(target: Target, workload: Workload, *, timeout_s: float = 600.0) -> Target:
    """Ask the server for one answer; return the target with what the server understands.

    The answer is left at its first byte: it shows that the server takes such requests.

    Raises:
        InputError: nothing answers there, or the server refuses the model, the key, the lengths.
    """
    workload.require(1)
    async with _session(target, timeout_s) as session:
        sent = await _first_bytes(session, target, workload)
        if target.return_token_ids and sent.status is not None and 400 <= sent.status < 500:
            simpler = replace(target, return_token_ids=False)
            again = await _first_bytes(session, simpler, workload)
            if again.failure is None:
                return simpler
    if sent.failure is not None:
        raise _refusal(target, workload, sent)
    return target


async def measure(
    target: Target,
    workload: Workload,
    *,
    concurrency: int,
    requests: int,
    warmup: int,
    timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> tuple[list[RequestTrace], ClientHealth]:
    """Measure one point; `probe` the target first, once per server.

    Args:
        target: the server, as `probe` returned it.
        workload: what is sent; give points on one server distinct seeds or salts.
        concurrency: requests in flight.
        requests: measured requests in all, at least one per stream.
        warmup: requests in all that are sent before, with prompts of their own; at least one per
            stream is sent.
        timeout_s: seconds that one request may take.
        progress: called with each request, warm-up included, once it has ended.

    Returns:
        The requests in the order of their ends, warm-up included, and how the client fared.
        Failed requests are among them; no failure raises.

    Raises:
        InputError: fewer requests than streams, or not so many distinct prompts.
    """
    if requests < concurrency:
        problem = f"{requests} requests cannot fill {concurrency} streams"
        raise InputError("requests", problem, f"give at least {concurrency}")
    warmup = max(warmup, concurrency)
    workload.require(max(requests, warmup))
    async with _session(target, timeout_s) as session:
        warm = _Phase(session, target, workload, "warm-up", warmup, progress)
        measured = _Phase(session, target, workload, "measured", requests, progress)
        with frozen_garbage():
            await warm.run(concurrency)
            watch = HealthProbe()
            try:
                await measured.run(concurrency)
            finally:
                health = watch.stop()
    return sorted(warm.traces + measured.traces, key=lambda trace: trace.ended_ns), health


def run_probe(target: Target, workload: Workload, *, timeout_s: float = 600.0) -> Target:
    """Run `probe` in an event loop of its own."""
    return _run(probe(target, workload, timeout_s=timeout_s))


def run_measure(
    target: Target,
    workload: Workload,
    *,
    concurrency: int,
    requests: int,
    warmup: int,
    timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> tuple[list[RequestTrace], ClientHealth]:
    """Run `measure` in an event loop of its own."""
    return _run(
        measure(
            target,
            workload,
            concurrency=concurrency,
            requests=requests,
            warmup=warmup,
            timeout_s=timeout_s,
            progress=progress,
        )
    )


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        import uvloop
    except ImportError:  # Windows
        factory = None
    else:
        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work)
    finally:
        # An interrupt may come before the loop takes it; Python would warn of that at the end.
        work.close()


@dataclass(slots=True)
class _Exchange:
    """One request as it went: times, what was read, how it ended."""

    scheduled_ns: int
    sent_ns: int
    ended_ns: int = 0
    reads: list[tuple[int, bytes]] = field(default_factory=list)
    status: int | None = None
    failure: Failure | None = None
    detail: str | None = None


class _Phase:
    """The requests of one phase, sent by all streams until none is left."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        target: Target,
        workload: Workload,
        phase: Phase,
        requests: int,
        progress: Progress | None,
    ) -> None:
        self.traces: list[RequestTrace] = []
        self._session = session
        self._url = target.completions_url
        self._warm_up = phase == "warm-up"
        self._osl = workload.osl
        self._progress = progress
        # Made before the clock runs: making a long prompt would hold up other streams' reads.
        self._bodies = [_body(target, workload, phase, index) for index in range(requests)]

    async def run(self, concurrency: int) -> None:
        bodies = iter(self._bodies)
        start_ns = time.perf_counter_ns()
        async with asyncio.TaskGroup() as tasks:
            for stream in range(concurrency):
                due_ns = start_ns + round(stream * STAGGER_S * 1e9)
                tasks.create_task(self._stream(tasks, stream, due_ns, bodies))

    async def _stream(
        self, tasks: asyncio.TaskGroup, stream: int, due_ns: int, bodies: Iterator[bytes]
    ) -> None:
        await asyncio.sleep((due_ns - time.perf_counter_ns()) / 1e9)
        for body in bodies:
            exchange = await _exchange(self._session, self._url, body, due_ns)
            due_ns = exchange.ended_ns
            # Parsed beside the next request, which goes out first.
            tasks.create_task(self._keep(stream, exchange))
            if exchange.failure is not None:
                await asyncio.sleep(_REFUSED_PAUSE_S)
                due_ns = time.perf_counter_ns()

    async def _keep(self, stream: int, exchange: _Exchange) -> None:
        trace = await _trace(stream, self._warm_up, self._osl, exchange)
        self.traces.append(trace)
        if self._progress is not None:
            self._progress(trace)


def _session(target: Target, timeout_s: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        headers=target.headers | {"Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S),
        read_bufsize=_READ_BUFFER,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _body(target: Target, workload: Workload, phase: Phase, index: int) -> bytes:
    request = {
        "model": target.model,
        "prompt": workload.prompt(phase, index),
        "max_tokens": workload.osl,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if target.return_token_ids:
        request["return_token_ids"] = True
    return orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)


async def _exchange(
    session: aiohttp.ClientSession, url: str, body: bytes, scheduled_ns: int, *, whole: bool = True
) -> _Exchange:
    """Send one request and read its answer: whole, or up to its first bytes."""
    clock = time.perf_counter_ns
    result = _Exchange(scheduled_ns, clock())
    reads = result.reads
    try:
        async with session.post(url, data=body, allow_redirects=False) as response:
            result.status = response.status
            if response.status == 200:
                async for data in response.content.iter_any():
                    reads.append((clock(), data))
                    if not whole:
                        break
            else:
                result.failure = _status_failure(response.status)
                message = error_message(await response.content.read(2**16))
                result.detail = f"HTTP {response.status}: {message}"
    except aiohttp.ConnectionTimeoutError:
        result.failure, result.detail = "connect", f"no connection within {_CONNECT_S:g} s"
    except TimeoutError:
        result.failure, result.detail = "timeout", f"no end within {session.timeout.total:g} s"
    except aiohttp.ClientSSLError as error:
        result.failure, result.detail = "connect", excerpt(f"{_TLS}{error}".encode())
    except aiohttp.ClientConnectorError as error:
        result.failure, result.detail = "connect", excerpt(str(error).encode())
    except aiohttp.ClientResponseError as error:  # what came is no HTTP
        result.failure, result.detail = "malformed", excerpt(str(error.message).encode())
    except (aiohttp.ClientError, OSError) as error:
        text = str(error) or type(error).__name__
        result.failure, result.detail = "cut", excerpt(text.encode())
    result.ended_ns = clock()
    return result


def _status_failure(status: int) -> Failure:
    if status >= 500:
        return "http_5xx"
    return "http_4xx" if status >= 400 else "malformed"


async def _trace(stream: int, warm_up: bool, osl: int, exchange: _Exchange) -> RequestTrace:
    """Parse an answer, a slice at a time: the event loop has other streams to read."""
    answer = Answer()
    for position, (time_ns, data) in enumerate(exchange.reads, 1):
        answer.feed(time_ns, data)
        if position % _PARSE_SLICE == 0:
            await asyncio.sleep(0)
    if exchange.failure is None:
        answer.finish(osl)
    times, tokens = answer.chunks
    return RequestTrace(
        stream=stream,
        warm_up=warm_up,
        scheduled_ns=exchange.scheduled_ns,
        sent_ns=exchange.sent_ns,
        ended_ns=exchange.ended_ns,
        first_byte_ns=exchange.reads[0][0] if exchange.reads else None,
        first_content_ns=times[0] if times else None,
        last_ns=times[-1] if times else None,
        chunk_ns=times,
        chunk_tokens=tokens,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        counted_tokens=answer.counted_tokens,
        cached_tokens=answer.cached_tokens,
        finish_reason=answer.finish_reason,
        failure=answer.failure or exchange.failure,
        detail=answer.detail or exchange.detail,
        http_status=exchange.status,
    )


async def _first_bytes(
    session: aiohttp.ClientSession, target: Target, workload: Workload
) -> _Exchange:
    body = _body(target, workload, "probe", 0)
    now = time.perf_counter_ns()
    return await _exchange(session, target.completions_url, body, now, whole=False)


def _refusal(target: Target, workload: Workload, sent: _Exchange) -> InputError:
    """Return what is wrong with the target, in words."""
    said = sent.detail or ""
    if sent.failure == "connect" and said.startswith(_TLS):
        mend = "correct the URL, or name the file of its authority in SSL_CERT_FILE"
        return InputError("base-url", f"no TLS connection ({said.removeprefix(_TLS)})", mend)
    if sent.failure == "connect":
        mend = "start the server or correct the URL"
        return InputError("base-url", f"no server answers at {target.origin}", mend)
    if sent.status in (401, 403):
        return InputError("api-key", f"the server refuses it ({said})", "give another --api-key")
    if sent.status == 404:
        problem = f"{target.model!r} is not served at {target.completions_url} ({said})"
        return InputError("model", problem, "correct the model's name or the URL")
    if sent.status is not None and 400 <= sent.status < 500:
        problem = f"the server refuses {workload.isl} tokens in, {workload.osl} out ({said})"
        return InputError("workload", problem, "correct isl, osl, the vocabulary or the model")
    problem = f"{target.completions_url} gives no answer ({said})"
    return InputError("base-url", problem, "look at the server's log")
