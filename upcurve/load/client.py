"""The closed loop: so many requests in flight, each stream sending its next when one ends."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import mean

import aiohttp
import numpy as np

from upcurve.load.stream import Read, interpret
from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Phase, Workload

READ_BUFFER_BYTES = 4 * 2**20
"""aiohttp's own 64 KiB throttles long prompts' responses (vLLM issue 39963)."""
LAG_PROBE_S = 0.01
SATURATED_LAG_MS = 20.0
SATURATED_CPU = 0.8
"""Share of one core from which the event loop itself is the bottleneck."""
MOST_STAGGER_S = 1.0

Progress = Callable[[RequestTrace], None]


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """What the client cost, and whether it held the measurement back."""

    lag_p99_ms: float
    """How late the event loop woke a timer of 10 ms, 99th percentile."""
    cpu_s: float
    saturated: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """One operating point as it was seen by the client."""

    concurrency: int
    traces: list[RequestTrace]
    """Warm-up requests too, marked."""
    health: ClientHealth


def measure(
    target: Target,
    workload: Workload,
    *,
    concurrency: int,
    requests: int,
    warmup: int,
    timeout_s: float,
    progress: Progress | None = None,
) -> Measurement:
    """Measure one operating point.

    Args:
        target: as `probe` returned it.
        workload: what to send.
        concurrency: requests in flight.
        requests: how many are measured.
        warmup: how many are sent before, with prompts of their own.
        timeout_s: seconds until a request counts as failed.
        progress: called when a request ends.
    """
    loop = _Loop(target, workload, concurrency, timeout_s, progress)
    runner = asyncio.Runner(loop_factory=_event_loop())
    with runner, _no_collections():
        return runner.run(loop.run(requests, warmup))


class _Loop:
    def __init__(
        self,
        target: Target,
        workload: Workload,
        concurrency: int,
        timeout_s: float,
        progress: Progress | None,
    ) -> None:
        self._target = target
        self._workload = workload
        self._concurrency = concurrency
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._progress = progress

    async def run(self, requests: int, warmup: int) -> Measurement:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=None),
            timeout=self._timeout,
            read_bufsize=READ_BUFFER_BYTES,
            trust_env=True,
        ) as session:
            warm = await self._phase(session, "warmup", warmup, stagger_s=0.0)
            first = [
                (each.chunk_ns[0] - each.sent_ns) / 1e9 for each in warm if each.failure is None
            ]
            stagger = min(MOST_STAGGER_S, mean(first)) if first else 0.0
            lags: list[float] = []
            lag_probe = asyncio.create_task(_probe_lag(lags))
            cpu = time.process_time()
            measured = await self._phase(session, "measured", requests, stagger_s=stagger)
            cpu = time.process_time() - cpu
            lag_probe.cancel()
            with suppress(asyncio.CancelledError):
                await lag_probe
        wall = (max(each.end_ns for each in measured) - measured[0].sent_ns) / 1e9
        lag = float(np.percentile(lags, 99)) if lags else 0.0
        saturated = lag > SATURATED_LAG_MS or cpu > SATURATED_CPU * wall
        return Measurement(self._concurrency, warm + measured, ClientHealth(lag, cpu, saturated))

    async def _phase(
        self, session: aiohttp.ClientSession, phase: Phase, count: int, stagger_s: float
    ) -> list[RequestTrace]:
        """Send `count` requests over the streams; the first of each is spread over `stagger_s`."""
        indices: Iterator[int] = iter(range(count))
        traces: list[RequestTrace] = []

        async def stream(number: int) -> None:
            await asyncio.sleep(stagger_s * number / self._concurrency)
            for index in indices:
                trace = await self._request(session, phase, index, number)
                traces.append(trace)
                if self._progress is not None:
                    self._progress(trace)

        async with asyncio.TaskGroup() as group:
            for number in range(min(self._concurrency, count)):
                group.create_task(stream(number))
        return sorted(traces, key=lambda trace: trace.index)

    async def _request(
        self, session: aiohttp.ClientSession, phase: Phase, index: int, stream: int
    ) -> RequestTrace:
        scheduled = time.perf_counter_ns()
        target = self._target
        body = self._workload.body(target.model, phase, index, token_ids=target.token_ids)
        trace = RequestTrace(index, stream, phase == "warmup", scheduled, time.perf_counter_ns())
        reads: list[Read] = []
        try:
            async with session.post(
                f"{target.base_url}/completions", data=body, headers=target.headers
            ) as response:
                trace.status = response.status
                async for data in response.content.iter_any():
                    reads.append((time.perf_counter_ns(), data))
            trace.end_ns = time.perf_counter_ns()
        except TimeoutError:
            trace.failure, trace.detail = "timeout", f"no end after {self._timeout.total} s"
        except (aiohttp.ClientError, OSError) as error:
            kind = "connect" if trace.status is None else "cut"
            trace.failure, trace.detail = kind, (str(error) or type(error).__name__)[:300]
        trace.end_ns = trace.end_ns or time.perf_counter_ns()
        if trace.failure is None and trace.status is not None:
            if trace.status == 200:
                interpret(trace, reads)
            else:
                trace.failure = f"http_{trace.status // 100}xx"
                text = b"".join(data for _, data in reads)
                trace.detail = f"{trace.status} {text.decode(errors='replace')[:300]}"
        if trace.failure in ("connect", "http_4xx", "http_5xx"):
            # A refusal comes back at once: without a pause the loop would spin.
            await asyncio.sleep(0.05)
        return trace


async def _probe_lag(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + LAG_PROBE_S
        await asyncio.sleep(LAG_PROBE_S)
        lags.append(max(0.0, (time.perf_counter() - due) * 1000))


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector out of the measurement."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
