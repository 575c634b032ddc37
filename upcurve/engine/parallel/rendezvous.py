"""How ranks find each other: a store at one address, and the default group of torch.distributed."""

from __future__ import annotations

import ipaddress
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

WAIT = timedelta(minutes=10)
"""How long a rank waits for the others: they may read weights meanwhile."""


def join(
    host: str, port: int, rank: int, ranks: int, backend: str, *, listener: int | None = None
) -> dist.Store:
    """Join the others; return once all have.

    Args:
        host: of the first rank.
        port: of its store.
        rank: of this process.
        ranks: all of them.
        backend: "nccl" (RCCL on AMD), or "gloo".
        listener: on the first rank, the descriptor of a socket that listens there already.

    Returns:
        The store that they share.
    """
    if backend == "gloo" and _is_loopback(host) and sys.platform == "linux":
        # Otherwise gloo asks for the address of the host's name, which may have none.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.TCPStore(
        host, port, ranks, rank == 0, WAIT, wait_for_workers=False, master_listen_fd=listener
    )
    # Early communicators of NCCL: one that is formed while a graph is captured fails.
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else None
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=ranks, timeout=WAIT, device_id=device
    )
    return store


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
