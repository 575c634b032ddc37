"""How ranks find each other: a store at one address, then groups and connections."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.own_address import address_towards
from upcurve.engine.parallel.ranks import Ranks
from upcurve.engine.parallel.seat import Seat
from upcurve.engine.platform import take_gpu

logger = logging.getLogger(__name__)

WAIT = timedelta(minutes=30)
"""How long a rank waits for the others: they may read weights meanwhile."""


def meet(
    seat: Seat,
    layout: Layout,
    *,
    gpu: bool,
    lost: Callable[[str], None],
    listener: socket.socket | None = None,
) -> tuple[Ranks, Control | None]:
    """Take a seat and find the other ranks; return once all are there.

    With a GPU this has to come before anything that uses one.

    Args:
        seat: of this process.
        layout: with as many ranks.
        gpu: compute on GPUs, if there are any.
        lost: as `Control`.
        listener: on the first rank, a socket that listens at the rendezvous already.

    Returns:
        This rank among the others; and its connections to them, unless it is alone.
    """
    count = take_gpu(seat.gpu) if gpu else 0
    if seat.ranks == 1:
        return Ranks.of(layout, 0), None
    store = _store(seat, listener)
    store.set(_key(seat.rank), "own" if seat.gpu < count else "shared" if count else "none")
    kinds = {store.get(_key(rank)).decode() for rank in range(seat.ranks)}
    backend = "nccl" if kinds == {"own"} else "gloo"
    if kinds == {"own", "shared"} and seat.rank == 0:
        logger.warning(
            "ranks share a GPU: they talk through the host and graphs are off; for trying layouts"
        )
    join(store, seat, backend)
    through_host = backend == "gloo" and count > 0
    ranks = Ranks.of(layout, seat.rank, through_host=through_host)
    return ranks, Control(ranks, store, address_towards(seat.host, seat.port), lost)


def join(store: Store, seat: Seat, backend: str) -> None:
    """Join the default group of torch.distributed.

    Args:
        store: that all ranks share.
        seat: of this process.
        backend: "nccl" (RCCL on AMD), or "gloo".
    """
    if backend == "gloo" and _is_loopback(seat.host) and sys.platform == "linux":
        # Otherwise gloo asks for the address of the host's name, which may have none.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend,
        store=store,
        rank=seat.rank,
        world_size=seat.ranks,
        timeout=WAIT,
        # Connected now, not by the first operation, which might be inside a graph.
        device_id=torch.device("cuda", 0) if backend == "nccl" else None,
    )


def _store(seat: Seat, listener: socket.socket | None) -> Store:
    first = seat.rank == 0 and not seat.hosted
    store = TCPStore(
        seat.host,
        seat.port,
        seat.ranks,
        first,
        WAIT,
        wait_for_workers=False,
        master_listen_fd=None if listener is None else listener.detach(),
    )
    return PrefixStore("upcurve", store)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(rank: int) -> str:
    return f"gpu/{rank}"
