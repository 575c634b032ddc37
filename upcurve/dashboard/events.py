"""Server-sent events: what was added to the store, whoever wrote it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

import orjson

from upcurve.dashboard.answers.runs import run_item
from upcurve.dashboard.catalogue import group_id
from upcurve.dashboard.contract.runs import Event, NewPoint
from upcurve.dashboard.reader import Reader
from upcurve.errors import InputError
from upcurve.records.browse import added, figures, highest_point

POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
"""Proxies close connections that say nothing for longer."""
MOST_POINTS = 200
MOST_READERS = 100

logger = logging.getLogger(__name__)


class Feed:
    """Watches the store while anyone listens, and tells all who do."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._queues: set[asyncio.Queue[bytes | None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether so many listen that one more is to be refused."""
        return len(self._queues) >= MOST_READERS

    async def listen(self) -> AsyncIterator[bytes]:
        """Yield events as they come, and comments that keep the connection open."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=100)
        self._queues.add(queue)
        try:
            # What the watcher starts from is read first: nothing falls between it and the event.
            start = await asyncio.to_thread(self._start)
            first = await asyncio.to_thread(self._event, None)
            if self._watcher is None:
                self._watcher = asyncio.create_task(self._watch(*start))
            yield _encoded(first)
            while not self._closed:
                try:
                    sent = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if sent is None:
                    return
                yield sent
        finally:
            self._queues.discard(queue)
            if not self._queues and self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for queue in self._queues:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)
        if self._watcher is not None:
            self._watcher.cancel()

    def _start(self) -> tuple[str, int]:
        return self._reader.version(), highest_point(self._reader.store)

    async def _watch(self, version: str, highest: int) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                now = await asyncio.to_thread(self._reader.version)
                if now == version:
                    continue
                event = await asyncio.to_thread(self._event, highest)
            except InputError as error:  # e.g. the disk is full, or the server is restarted
                logger.warning("the store cannot be read: %s", error)
                continue
            version = now
            highest = max([highest, *(each.id for each in event.points)])
            sent = _encoded(event)
            for queue in self._queues:
                # Who does not read for a minute asks anew by itself.
                with suppress(asyncio.QueueFull):
                    queue.put_nowait(sent)

    def _event(self, after: int | None) -> Event:
        """Return what is new above an id; None: nothing is, as at the start of a stream."""
        catalogue = self._reader.catalogue()
        new = [] if after is None else added(self._reader.store, after, MOST_POINTS)
        ids, of_runs = {key for key, _ in new}, list(dict.fromkeys(run for _, run in new))
        points = []
        for each in figures(self._reader.store, of_runs) if of_runs else []:
            run = catalogue.runs.get(each.run)
            if each.point.id in ids and run is not None:
                points.append(
                    NewPoint(
                        id=each.point.id,
                        run=each.run,
                        series=run.series,
                        group=group_id(run.model, each.isl, each.osl),
                        isl=each.isl,
                        osl=each.osl,
                        tp=each.point.tp,
                        gpus=each.point.gpus,
                        concurrency=each.point.concurrency,
                        repeat=each.point.repeat,
                        interactivity=each.point.interactivity,
                        tput_per_gpu=each.point.tput_per_gpu,
                    )
                )
        running = [run for run in catalogue.runs.values() if run.status == "running"]
        return Event(
            store_version=catalogue.version,
            points=points,
            running=[run_item(catalogue, run) for run in running],
        )


def _encoded(event: Event) -> bytes:
    data = orjson.dumps(event.model_dump(mode="json"))
    return b"event: store\ndata: " + data + b"\n\n"
