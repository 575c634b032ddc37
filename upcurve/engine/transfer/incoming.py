"""One connection of a prefill rank, as the decode rank sees it."""

from __future__ import annotations

import os
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext, suppress

import numpy as np
import torch

from upcurve.engine.transfer import frames
from upcurve.engine.transfer.frames import BrokenFrameError, Frame
from upcurve.engine.transfer.nixl import POLL_SECONDS, Registration, write_name
from upcurve.engine.transfer.staging import Staging
from upcurve.engine.transfer.views import CacheViews, check_rows


class Incoming(ABC):
    """The thread that accepted the connection runs it."""

    registration: str = ""
    """Name by which the other end writes; it is good until this connection ends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._is_over = False
        self._waiting: list[Callable[[], None]] = []

    @abstractmethod
    def run(self) -> None:
        """Serve the connection until it ends.

        Raises:
            BrokenFrameError: what arrived makes no sense.
            OSError: the connection broke off.
        """

    @abstractmethod
    def leave(self) -> None:
        """See to it that it ends soon; called by another thread."""

    @abstractmethod
    def settle(self, *, broken: bool) -> None:
        """Wait until nothing will be written any more; `broken` is how the connection ended."""

    def on_end(self, call: Callable[[], None]) -> None:
        """Call it once nothing will be written any more; now, if so."""
        with self._lock:
            over = self._is_over
            if not over:
                self._waiting.append(call)
        if over:
            call()

    def ended(self) -> None:
        """Say that nothing will be written any more."""
        with self._lock:
            self._is_over = True
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()


class TcpWriter(Incoming):
    """Writes what comes in frames, each before the next is read."""

    def __init__(self, connection: socket.socket, target: CacheViews, page_size: int) -> None:
        super().__init__(connection)
        self._target = target
        self._page_size = page_size
        self._staging = Staging(frames.FRAME_BYTES, target.device)
        self._stream = torch.cuda.Stream(target.device) if target.device.type == "cuda" else None

    @torch.inference_mode()
    def run(self) -> None:
        """Write, and say of each transfer that ends that all of it is written."""
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            while (frame := frames.receive(self._connection)) is not None:
                match frame.kind:
                    case frames.KEY_VALUE:
                        self._keys_values(frame)
                    case frames.RECURRENT:
                        self._state(frame, self._target.recurrent, dim=0)
                    case frames.CONVOLUTION:
                        self._state(frame, self._target.convolution, dim=1)
                    case frames.END:
                        frames.send(self._connection, Frame(frames.DONE, frame.text))
                    case _:
                        raise BrokenFrameError(f"a frame of kind {frame.kind}")

    def leave(self) -> None:
        """Take no more of the connection."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def settle(self, *, broken: bool) -> None:
        """Return: what was read is written."""

    def _keys_values(self, frame: Frame) -> None:
        cache = _layer(self._target.rows, frame)
        if len(frame.rows) % 4:
            raise BrokenFrameError("rows that are not int32")
        rows = np.frombuffer(frame.rows, dtype="<i4").astype(np.int64)
        check_rows(rows, self._page_size, cache.shape[1])
        place = _part(cache, frame, dim=2)
        data = self._payload(frame, (2, len(rows), *place.shape[2:]), place.dtype)
        place.index_copy_(1, torch.from_numpy(rows).to(place.device), data)
        self._written()

    def _state(self, frame: Frame, states: torch.Tensor, *, dim: int) -> None:
        layer = _layer(states, frame)
        # The last slot is for padding.
        if not 0 <= frame.slot < len(layer) - 1:
            raise BrokenFrameError(f"slot {frame.slot} of {len(layer) - 1}")
        place = _part(layer[frame.slot], frame, dim=dim)
        place.copy_(self._payload(frame, tuple(place.shape), place.dtype))
        self._written()

    def _payload(self, frame: Frame, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = torch.Size(shape).numel() * dtype.itemsize
        if frame.size != size:
            raise BrokenFrameError(f"{frame.size} bytes instead of {size}")
        frames.receive_into(self._connection, self._staging.room(size))
        return self._staging.to_device(shape, dtype)

    def _written(self) -> None:
        # The room is needed for the next.
        if self._stream is not None:
            self._stream.synchronize()


class CopyWatch(Incoming):
    """Watches a process that writes by itself."""

    def __init__(self, connection: socket.socket, process: int) -> None:
        """Take a connection to a process of this host; 0 where it is on another.

        Raises:
            OSError: it is gone already.
        """
        super().__init__(connection)
        self._process = os.pidfd_open(process) if process else None

    def run(self) -> None:
        """Wait until it has written its last."""
        frame = frames.receive(self._connection)
        if frame is None:
            raise ConnectionError("a prefill rank ended")
        if frame.kind != frames.BYE:
            raise BrokenFrameError(f"a frame of kind {frame.kind}")

    def leave(self) -> None:
        """Ask it to say farewell."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def settle(self, *, broken: bool) -> None:
        """Wait until the process has ended, unless it said farewell."""
        if self._process is None:
            return
        if broken:
            # What it has asked its GPU for ends with its descriptors: before it counts as ended.
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            poll.poll()
        os.close(self._process)


class NixlWatch(CopyWatch):
    """Watches a process that writes through NIXL, and sees what it has written."""

    def __init__(
        self, connection: socket.socket, process: int, source: int, registration: Registration
    ) -> None:
        """Take the rank that writes, and the registration by which it does; as `CopyWatch`."""
        super().__init__(connection, process)
        self._source = source
        self._registration = registration
        self.registration = registration.name

    def run(self) -> None:
        """Say of each transfer that ends when all of it has been seen."""
        while (frame := frames.receive(self._connection)) is not None:
            if frame.kind == frames.BYE:
                return
            if frame.kind != frames.END:
                raise BrokenFrameError(f"a frame of kind {frame.kind}")
            if self._sees(frame.text, frame.count):
                frames.send(self._connection, Frame(frames.DONE, frame.text))
        raise ConnectionError("a prefill rank ended")

    def leave(self) -> None:
        """Ask for a farewell; from another host nothing can be written without this end."""
        with suppress(OSError):
            here = self._process is not None
            self._connection.shutdown(socket.SHUT_WR if here else socket.SHUT_RDWR)

    def settle(self, *, broken: bool) -> None:
        """Give the registration up; within a host, a write may be on its way nevertheless."""
        self._registration.close()
        super().settle(broken=broken)

    def _sees(self, transfer: str, count: int) -> bool:
        """Wait until so many writes of a transfer are seen; False where the other side ends."""
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP)
        name = write_name(self._source, transfer)
        while (seen := self._registration.seen(name)) is None or seen < count:
            # Another rank of that worker has ended, or this one: its farewell is next.
            if seen is None or poll.poll(POLL_SECONDS * 1e3):
                return False
        self._registration.forget(name)
        return True


def _layer(cache: torch.Tensor, frame: Frame) -> torch.Tensor:
    if not 0 <= frame.layer < len(cache):
        raise BrokenFrameError(f"layer {frame.layer} of {len(cache)}")
    return cache[frame.layer]


def _part(x: torch.Tensor, frame: Frame, *, dim: int) -> torch.Tensor:
    begin, count = frame.begin, frame.count
    if not (begin >= 0 and count > 0 and begin + count <= x.shape[dim]):
        raise BrokenFrameError(f"heads or channels {begin} to {begin + count} of {x.shape[dim]}")
    return x.narrow(dim, begin, count)
