"""Memory on the host between a socket and a device."""

from __future__ import annotations

import torch


class Staging:
    """One payload at a time; on the CPU nothing is copied that need not be."""

    def __init__(self, size: int, device: torch.device) -> None:
        """Hold `size` bytes, or more where a payload is larger; pinned for a GPU."""
        self._device = device
        self._buffer = self._empty(size)

    def to_host(self, data: torch.Tensor) -> memoryview:
        """Return the bytes of a tensor, once the current stream has computed it.

        They are good until the next call.
        """
        flat = data.contiguous().view(-1).view(torch.uint8)
        if flat.device.type == "cpu":
            return flat.numpy().data
        room = self._room(len(flat))
        room.copy_(flat, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return room.numpy().data

    def room(self, size: int) -> memoryview:
        """Return memory for so many bytes."""
        return self._room(size).numpy().data

    def to_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return what was put into the room as a tensor; its copy is on the current stream."""
        count = torch.Size(shape).numel() * dtype.itemsize
        held = self._buffer[:count].view(dtype).view(shape)
        return held.to(self._device, non_blocking=True)

    def _room(self, size: int) -> torch.Tensor:
        if size > len(self._buffer):
            self._buffer = self._empty(size)
        return self._buffer[:size]

    def _empty(self, size: int) -> torch.Tensor:
        pinned = self._device.type == "cuda"
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
