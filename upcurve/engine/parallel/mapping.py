"""A tensor of one process mapped into another of the same host: CUDA IPC, or shared memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

SHARED_MEMORY = "/dev/shm"  # noqa: S108
"""Where torch makes it, in memory."""


@dataclass(frozen=True, slots=True)
class Export:
    """How another process finds a tensor's memory."""

    dtype: str
    shape: tuple[int, ...]
    gpu: tuple[Any, ...] | None = None
    """As torch exports a storage on a GPU: device, handle of the allocation, bytes, offset in it,
    and what it counts and waits with."""
    memory: tuple[int, int, int] | None = None
    """On the CPU: process id, its file descriptor of shared memory, bytes."""


@cache
def host_identity() -> str:
    """Return what processes have in common that can map each other's memory; "" where unknown.

    That is the running system and, of its containers, the one whose process ids are these.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def export(tensor: torch.Tensor) -> Export:
    """Let other processes of this user map a contiguous tensor that owns its whole storage.

    Its storage is given new memory, or the same by another handle, and views of it with it: nobody
    may be using them. What it holds has to be computed. Any number of processes may map it.

    Raises:
        RuntimeError: torch or the driver cannot.
        OSError: there is not enough shared memory.
    """
    storage: Any = tensor.untyped_storage()
    name, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if not storage.nbytes():
        return Export(name, shape)
    if tensor.device.type == "cuda":
        return Export(name, shape, gpu=storage._share_cuda_())
    if not storage.is_shared():
        room = os.statvfs(SHARED_MEMORY)
        # What is not there would end the process when it is written.
        if storage.nbytes() > room.f_bavail * room.f_frsize:
            raise OSError(f"{SHARED_MEMORY} has no room for {storage.nbytes()} bytes")
    descriptor, size = storage._share_fd_cpu_()
    return Export(name, shape, memory=(os.getpid(), descriptor, size))


def open_export(exported: Export) -> torch.Tensor:
    """Map the tensor; what is written is seen by its owner, who must outlive the use.

    The owner's GPU need not be one that this process sees: peers map it on their own.

    Raises:
        RuntimeError: torch or the driver cannot.
        OSError: the owner is gone or another user's.
    """
    dtype: torch.dtype = getattr(torch, exported.dtype)
    storage: Any
    shared: Any = torch.UntypedStorage
    if exported.gpu is not None:
        # Every process has one GPU, which is its first. The event that tells when the memory was
        # written belongs to a GPU that this process may not see, and nothing has to be waited for.
        _, *rest, _ = exported.gpu
        torch.cuda.init()
        storage = shared._new_shared_cuda(torch.cuda.current_device(), *rest, False)
        empty = torch.empty(0, dtype=dtype, device="cuda")
    elif exported.memory is None:
        # A model without layers of that kind.
        return torch.empty(exported.shape, dtype=dtype)
    else:
        process, descriptor, size = exported.memory
        opened = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR)
        try:
            # It keeps a descriptor of its own.
            storage = shared._new_shared_fd_cpu(opened, size)
        finally:
            os.close(opened)
        empty = torch.empty(0, dtype=dtype)
    return empty.set_(storage).view(exported.shape)
