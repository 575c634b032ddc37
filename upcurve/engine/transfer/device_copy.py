"""Slices from device to device within a host: one rank writes into the memory of the other."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import ClassVar

import numpy as np
import torch

from upcurve.engine.kernels.row_copy import copy_rows
from upcurve.engine.memory.memory import PADDING_PAGE
from upcurve.engine.transfer import frames
from upcurve.engine.transfer.frames import Frame
from upcurve.engine.transfer.link import Ends, Link, LinkStep, Part, Transfer
from upcurve.engine.transfer.resharding import joined
from upcurve.engine.transfer.views import CacheViews, token_rows


class CopyLink(Link):
    """Copies on a stream of its own, behind the events of the layers.

    The connection says only that both are there: this side closes it when nothing is on its way any
    more, with a farewell; the other one when nothing shall come.
    """

    way: ClassVar[str] = "copy"

    def __init__(self, ends: Ends, target: CacheViews, connection: socket.socket) -> None:
        """Take the mapped caches of the target, and a connection on which hello was answered."""
        super().__init__(ends)
        self._target: CacheViews | None = target
        self._connection = connection
        self._rows: tuple[list[Part], torch.Tensor, torch.Tensor] | None = None
        if self._stream is not None:
            self._compile()
        self._listener = threading.Thread(target=self._listen, name="upcurve-life", daemon=True)
        self._listener.start()

    def _compile(self) -> None:
        """Copy what belongs to nobody, so that the first prompt does not wait for a compiler."""
        span = self.route.kv_heads
        if span is not None and len(self._source.rows) and self._target is not None:
            nobody = torch.tensor([PADDING_PAGE * self._page_size], device=self._source.device)
            source = self._source.rows[0].narrow(2, span.source, span.count)
            target = self._target.rows[0].narrow(2, span.target, span.count)
            copy_rows(source, target, nobody, nobody)

    def _keys_values(self, step: LinkStep, place: int) -> None:
        span, parts = self.route.kv_heads, step.live
        assert span is not None
        assert self._target is not None
        if not parts:
            return
        here, there = self._places(parts)
        source = self._source.rows[place].narrow(2, span.source, span.count)
        target = self._target.rows[place].narrow(2, span.target, span.count)
        copy_rows(source, target, here, there)
        self.sent_bytes += 2 * len(here) * span.count * source.shape[3] * source.element_size()

    def _places(self, parts: list[Part]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of all tokens of a step, here and there; the same for all its layers."""
        if self._rows is None or self._rows[0] != parts:
            assert self._target is not None
            here = self._tokens([part.pages for part in parts], parts, self._source)
            there = self._tokens([part.remote_pages for part in parts], parts, self._target)
            rows = torch.from_numpy(np.stack([here, there]))
            if self._stream is not None:
                rows = rows.pin_memory().to(self._source.device, non_blocking=True)
            self._rows = parts, rows[0], rows[1]
        return self._rows[1:]

    def _tokens(self, pages: list[list[int]], parts: list[Part], caches: CacheViews) -> np.ndarray:
        """Return the rows of all tokens of some parts, on one side."""
        total = caches.rows.shape[2]
        return np.concatenate(
            [
                token_rows(each, part.first, part.count, self._page_size, total)
                for each, part in zip(pages, parts, strict=True)
            ]
        )

    def _states(self, part: Part, place: int) -> None:
        """Copy the states of all layers behind the last: it is launches that cost, not bytes."""
        heads = self.route.value_heads
        assert heads is not None
        assert self._target is not None
        if place + 1 < len(self._source.recurrent):
            return
        source = self._source.recurrent[:, part.slot]
        target = self._target.recurrent[:, part.remote_slot]
        self._copy(
            source.narrow(1, heads.source, heads.count), target.narrow(1, heads.target, heads.count)
        )
        source = self._source.convolution[:, part.slot]
        target = self._target.convolution[:, part.remote_slot]
        for span in joined(self.route.channels):
            self._copy(
                source.narrow(2, span.source, span.count), target.narrow(2, span.target, span.count)
            )

    def _copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        target.copy_(source, non_blocking=True)
        self.sent_bytes += source.nbytes

    def _end(self, transfer: Transfer) -> None:
        self._settle()
        self._written(self, transfer)

    def _settle(self) -> None:
        """Wait until what was asked for is written."""
        if self._stream is not None:
            # It may take as long as a step: wait without using the CPU.
            done = torch.cuda.Event(blocking=True)
            done.record(self._stream)
            done.synchronize()

    def _listen(self) -> None:
        """Hear whether the other side is still there and still wants anything."""
        reason = "the decode rank ended"
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        try:
            poll.poll()
            frame = frames.receive(self._connection)
            if frame is not None and frame.kind == frames.REFUSED:
                reason = frame.text
        except (OSError, frames.BrokenFrameError) as error:
            reason = str(error)
        self.stop(reason)

    def _interrupt(self) -> None:
        # It wakes the listener, and can still send.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def _close(self) -> None:
        self._settle()
        # The memory of a process that has ended is kept for as long as it is mapped.
        self._target = self._rows = None
        self._interrupt()
        self._listener.join()
        with suppress(OSError):
            frames.send(self._connection, Frame(frames.BYE))
        self._connection.close()
