"""Slices over TCP: works anywhere; a slice goes through the memory of both hosts."""

from __future__ import annotations

import socket
from typing import ClassVar

import numpy as np
import torch
from msgspec.structs import replace

from upcurve.engine.transfer import frames
from upcurve.engine.transfer.acknowledged import AcknowledgedLink
from upcurve.engine.transfer.frames import Frame
from upcurve.engine.transfer.link import Ends, LinkStep, Part, Transfer
from upcurve.engine.transfer.staging import Staging
from upcurve.engine.transfer.views import token_rows


class TcpLink(AcknowledgedLink):
    """Sends frames."""

    way: ClassVar[str] = "tcp"

    def __init__(self, ends: Ends, connection: socket.socket, patience: float) -> None:
        """Take what `AcknowledgedLink` does."""
        super().__init__(ends, connection, patience)
        self._staging = Staging(frames.FRAME_BYTES, ends.source.device)

    def _keys_values(self, step: LinkStep, place: int) -> None:
        span = self.route.kv_heads
        assert span is not None
        cache = self._source.rows[place].narrow(2, span.source, span.count)
        width = 2 * span.count * cache.shape[3] * cache.element_size()
        most = max(1, min(frames.FRAME_TOKENS, frames.FRAME_BYTES // width))
        for part in step.live:
            here, there = self._rows(part)
            for start in range(0, part.count, most):
                rows = torch.from_numpy(here[start : start + most]).to(self._source.device)
                self._send(
                    Frame(
                        frames.KEY_VALUE,
                        part.transfer,
                        place,
                        begin=span.target,
                        count=span.count,
                        rows=there[start : start + most].tobytes(),
                    ),
                    cache.index_select(1, rows),
                )

    def _rows(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a part's tokens: here int64, there as they are sent."""
        where = part.first, part.count, self._page_size
        here = token_rows(part.pages, *where, self._source.rows.shape[2])
        there = token_rows(part.remote_pages, *where, self._offer.total_rows)
        return here, there.astype("<i4")

    def _states(self, part: Part, place: int) -> None:
        heads = self.route.value_heads
        assert heads is not None
        states = self._source.recurrent[place, part.slot]
        most = max(1, frames.FRAME_BYTES // (states[0].numel() * states.element_size()))
        for start in range(0, heads.count, most):
            count = min(most, heads.count - start)
            self._state(
                *(frames.RECURRENT, part, place, heads.target + start, count),
                states.narrow(0, heads.source + start, count),
            )
        ring = self._source.convolution[place, part.slot]
        most = max(1, frames.FRAME_BYTES // (len(ring) * ring.element_size()))
        for span in self.route.channels:
            for start in range(0, span.count, most):
                count = min(most, span.count - start)
                self._state(
                    *(frames.CONVOLUTION, part, place, span.target + start, count),
                    ring.narrow(1, span.source + start, count),
                )

    def _state(
        self, kind: int, part: Part, place: int, begin: int, count: int, data: torch.Tensor
    ) -> None:
        frame = Frame(kind, part.transfer, place, part.remote_slot, begin, count)
        self._send(frame, data)

    def _send(self, frame: Frame, data: torch.Tensor) -> None:
        payload = self._staging.to_host(data)
        frames.send(self._connection, replace(frame, size=len(payload)), payload)
        self.sent_bytes += len(payload)

    def _end(self, transfer: Transfer) -> None:
        self._ask(transfer)
