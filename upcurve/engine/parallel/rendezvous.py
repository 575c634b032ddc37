"""How ranks find each other: a store at one address, then groups and connections."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.agreement import SAY_SECONDS, agree
from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.own_address import address_towards
from upcurve.engine.parallel.ranks import Ranks
from upcurve.engine.parallel.seat import Seat
from upcurve.engine.platform import take_gpu

logger = logging.getLogger(__name__)

WAIT = timedelta(minutes=30)
"""How long a rank waits for the others: they may read weights meanwhile."""
FIND_SECONDS = 30.0
"""How long the name of the rendezvous may be unknown: it may be given when its machine starts."""


def meet(
    seat: Seat,
    layout: Layout,
    *,
    gpu: bool,
    lost: Callable[[str], None],
    listener: socket.socket | None = None,
    told: Mapping[str, str] | None = None,
) -> tuple[Ranks, Control | None]:
    """Take a seat and find the other ranks; return once all are there.

    With a GPU this has to come before anything that uses one.

    Args:
        seat: of this process.
        layout: with as many ranks.
        gpu: compute on GPUs, if there are any.
        lost: as `Control`.
        listener: on the first rank, a socket that listens at the rendezvous already.
        told: name of an option -> its value, of what all ranks have to have alike.

    Returns:
        This rank among the others; and its connections to them, unless it is alone.

    Raises:
        EngineInputError: the host of the rendezvous is unknown, ranks do not come, or one was told
            something else.
    """
    count = take_gpu(seat.gpu) if gpu else 0
    if seat.ranks == 1:
        return Ranks.of(layout, 0), None
    store = _store(seat, listener)
    store.set(_key(seat.rank), "own" if seat.gpu < count else "shared" if count else "none")
    agree(store, seat, {**(told or {}), "device": "cuda" if count else "cpu"}, WAIT)
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
    # Off: NVLink multicast, which NCCL takes by itself where the switch between GPUs has it.
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
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
    _find(seat)
    late = threading.Timer(
        SAY_SECONDS, logger.info, ["rank %d waits for rank 0 at %s", seat.rank, seat.where]
    )
    late.daemon = True
    # One rank of each machine says it.
    if seat.gpu == 0:
        late.start()
    store = TCPStore(
        seat.host,
        seat.port,
        seat.ranks,
        first,
        WAIT,
        wait_for_workers=False,
        master_listen_fd=None if listener is None else listener.detach(),
    )
    late.cancel()
    return PrefixStore("upcurve", store)


def _find(seat: Seat) -> None:
    """Wait until the host of the rendezvous is known.

    Raises:
        EngineInputError: it is not within `FIND_SECONDS`.
    """
    deadline = time.monotonic() + FIND_SECONDS
    while True:
        try:
            socket.getaddrinfo(seat.host, seat.port)
        except (OSError, UnicodeError) as error:
            if time.monotonic() > deadline:
                raise EngineInputError(
                    "rendezvous", f"{seat.host} is not known here: {error}", "give another address"
                ) from error
            time.sleep(1.0)
        else:
            return


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(rank: int) -> str:
    return f"gpu/{rank}"
