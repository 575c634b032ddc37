"""Sends one process's share of a load and keeps what came back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass

from upcurve.load.arrivals import ClosedLoop, Load, OpenLoop
from upcurve.load.connection import Exchange
from upcurve.load.pool import Pool
from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Phase, Prompt, Workload

REFUSED_PAUSE_S = 0.05
"""A refusal comes back at once: without a pause the loop would spin."""

SENT, ENDED, FAILED, TOKENS = range(4)
"""Places of the counters that the parent process watches."""


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of a load: streams and requests are dealt out in turn."""

    load: Load
    worker: int
    workers: int

    @property
    def streams(self) -> range:
        """Streams of a closed loop that are this process's."""
        assert isinstance(self.load, ClosedLoop), "an open loop has no streams"
        return range(self.worker, self.load.concurrency, self.workers)

    def indices(self) -> Iterator[int]:
        """Yield the requests of a closed loop that are this process's: those of its streams."""
        assert isinstance(self.load, ClosedLoop), "an open loop has arrivals"
        concurrency, requests = self.load.concurrency, self.load.requests
        rounds = itertools.count(0, concurrency) if self.streams else ()
        for first in rounds:
            for stream in self.streams:
                if requests is not None and first + stream >= requests:
                    return
                yield first + stream

    def arrivals(self) -> Iterator[tuple[int, int]]:
        """Yield index and offset in ns of the arrivals of an open loop that are this process's."""
        assert isinstance(self.load, OpenLoop), "a closed loop has streams"
        # Every process that sends has a place; where there are fewer places, the others idle.
        workers = min(self.workers, self.load.limit or self.workers)
        for index, offset in enumerate(self.load.offsets_ns().tolist()):
            if index % workers == self.worker:
                yield index, offset

    @property
    def places(self) -> int | None:
        """Requests of an open loop that this process may have in flight; None: any number."""
        assert isinstance(self.load, OpenLoop), "a closed loop has streams"
        limit = self.load.limit
        return None if limit is None else len(range(self.worker, limit, self.workers))


_TIMER_NS = 1_000_000
"""Before the time that is meant, lest a timer fires after it."""

_AHEAD, _AHEAD_BYTES = 2**12, 2**25
"""Requests, and bytes of them, that are made before the clock runs; beyond, as others are sent."""


class Payloads:
    """The requests of one share, made ahead of need: making one holds up no read that matters."""

    def __init__(
        self, target: Target, workload: Workload, phase: Phase, indices: Iterator[int], ahead: int
    ) -> None:
        self._head = target.head
        self._target, self._workload, self._phase = target, workload, phase
        self._indices = indices
        self._ready: deque[tuple[int, Prompt, bytes]] = deque()
        self._all_made = False
        room = _AHEAD_BYTES
        while (made := self._make()) and (len(self._ready) < ahead or room > 0):
            room -= max(made, _AHEAD_BYTES // _AHEAD)

    def take(self) -> tuple[int, Prompt, bytes] | None:
        """Return index, prompt (without its content) and bytes of the next request, or None."""
        if not self._ready:
            self._make()
        if not self._ready:
            return None
        if not self._all_made:
            # The next one is made after this one was written.
            asyncio.get_running_loop().call_soon(self._make)
        return self._ready.popleft()

    def _make(self) -> int:
        """Make the next request; return its size in bytes, 0 where there is none."""
        index = next(self._indices, None)
        if index is None:
            self._all_made = True
            return 0
        prompt = self._workload.prompt(self._phase, index)
        payload = self._target.payload(self._head, prompt, exact=self._workload.exact_output)
        lengths = Prompt("", prompt.input_tokens, prompt.output_tokens)
        self._ready.append((index, lengths, payload))
        return len(payload)


class Driver:
    """Sends the requests of one phase after another to one target."""

    def __init__(self, target: Target, timeout_s: float, counters: MutableSequence[int]) -> None:
        self._target = target
        self._counters = counters
        self._pool = Pool(target, timeout_s)
        self._traces: list[RequestTrace] = []
        self._warm_up = False
        self._exact = True

    def prepare(self, workload: Workload, phase: Phase, share: Share) -> Payloads:
        """Make the first requests of a phase, before its clock runs."""
        self._warm_up = phase == "warm-up"
        self._exact = workload.exact_output
        if isinstance(share.load, ClosedLoop):
            indices, ahead = share.indices(), len(share.streams)
        else:
            indices, ahead = (index for index, _ in share.arrivals()), 64
        return Payloads(self._target, workload, phase, indices, ahead)

    async def run(self, payloads: Payloads, share: Share, start_ns: int) -> list[RequestTrace]:
        """Send all requests; return them, ended, in the order of their ends.

        Args:
            payloads: as `prepare` made them.
            share: which requests, and when.
            start_ns: when the phase begins, by the clock that all processes of a machine share.
        """
        self._traces = []
        if isinstance(share.load, ClosedLoop):
            load = share.load
            end_ns = None if load.duration_s is None else start_ns + round(load.duration_s * 1e9)
            async with asyncio.TaskGroup() as tasks:
                for stream in share.streams:
                    due_ns = start_ns + stream * load.stagger_ns
                    tasks.create_task(self._stream(stream, due_ns, end_ns, payloads))
        else:
            room = None if share.places is None else asyncio.Semaphore(share.places)
            async with asyncio.TaskGroup() as tasks:
                for _, offset_ns in share.arrivals():
                    await _until(start_ns + offset_ns)
                    taken = payloads.take()
                    assert taken is not None, "one payload per arrival"
                    tasks.create_task(self._arrival(start_ns + offset_ns, taken, room))
        # Answers are decoded beside the next request; the last ones have none beside them.
        await asyncio.sleep(0)
        return self._traces

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    async def _stream(
        self, stream: int, due_ns: int, end_ns: int | None, payloads: Payloads
    ) -> None:
        loop = asyncio.get_running_loop()
        await _until(due_ns)
        while end_ns is None or time.perf_counter_ns() < end_ns:
            taken = payloads.take()
            if taken is None:
                return
            exchange = await self._exchange(due_ns, taken)
            due_ns = exchange.ended_ns
            # Decoded beside the next request, which goes out first.
            loop.call_soon(self._keep, stream, taken, exchange)
            if exchange.failure is not None or exchange.status != 200:
                await asyncio.sleep(REFUSED_PAUSE_S)
                due_ns = time.perf_counter_ns()

    async def _arrival(
        self, due_ns: int, taken: tuple[int, Prompt, bytes], room: asyncio.Semaphore | None
    ) -> None:
        if room is None:
            exchange = await self._exchange(due_ns, taken)
        else:
            async with room:
                exchange = await self._exchange(due_ns, taken)
        self._keep(taken[0], taken, exchange)

    async def _exchange(self, due_ns: int, taken: tuple[int, Prompt, bytes]) -> Exchange:
        _, prompt, payload = taken
        # A model that may end by itself may also answer shorter than it was asked to.
        exchange = Exchange(due_ns, prompt.output_tokens if self._exact else None)
        self._counters[SENT] += 1
        await self._pool.exchange(exchange, payload)
        return exchange

    def _keep(self, stream: int, taken: tuple[int, Prompt, bytes], exchange: Exchange) -> None:
        exchange.settle()
        trace = trace_of(exchange, stream, taken[0], taken[1], warm_up=self._warm_up)
        self._traces.append(trace)
        self._counters[TOKENS] += 0 if trace.failure else trace.tokens
        self._counters[FAILED] += trace.failure is not None
        self._counters[ENDED] += 1


def trace_of(
    exchange: Exchange, stream: int, index: int, prompt: Prompt, *, warm_up: bool
) -> RequestTrace:
    """Return the record of an exchange that has settled."""
    answer = exchange.answer
    stamps, tokens = answer.chunks
    return RequestTrace(
        stream=stream,
        warm_up=warm_up,
        scheduled_ns=exchange.scheduled_ns,
        sent_ns=exchange.sent_ns,
        ended_ns=exchange.ended_ns,
        index=index,
        first_byte_ns=exchange.first_byte_ns,
        first_content_ns=stamps[0] if stamps else None,
        first_answer_ns=answer.first_answer_ns,
        last_ns=stamps[-1] if stamps else None,
        chunk_ns=stamps,
        chunk_tokens=tokens,
        input_tokens=prompt.input_tokens,
        requested_tokens=prompt.output_tokens,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        counted_tokens=answer.counted_tokens,
        cached_tokens=answer.cached_tokens,
        finish_reason=answer.finish_reason,
        failure=exchange.failure,
        detail=exchange.detail,
        http_status=exchange.status,
        new_connection=exchange.new_connection,
    )


async def _until(due_ns: int) -> None:
    """Sleep until a time. The event loop's timers know milliseconds: the last is spent in turns."""
    while (left_ns := due_ns - time.perf_counter_ns()) > 0:
        await asyncio.sleep(max(0, left_ns - _TIMER_NS) / 1e9)
