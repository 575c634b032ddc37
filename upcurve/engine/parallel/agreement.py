"""What ranks were told, compared before they compute together: what differs is an error."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from datetime import timedelta

from torch._C._distributed_c10d import Store

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.seat import Seat

logger = logging.getLogger(__name__)

SAY_SECONDS = 10.0
"""After so long it is said who is waited for."""
_LOOK_SECONDS = 0.05
_LAST_SECONDS = 1.0
"""How long the store stays with a first rank that ends: the others have to read in it why."""
_DIFFERS = "differs"


def agree(store: Store, seat: Seat, told: Mapping[str, str], patience: timedelta) -> None:
    """Wait until all ranks are there, and check that all were told the same.

    Args:
        store: that all share.
        seat: of this process.
        told: name of an option -> its value, of what all have to have alike.
        patience: how long the others may take to come.

    Raises:
        EngineInputError: naming the first option that two have otherwise; or ranks do not come.
    """
    try:
        _agree(store, seat, dict(told), time.monotonic() + patience.total_seconds())
    except EngineInputError:
        if seat.rank == 0:
            time.sleep(_LAST_SECONDS)
        raise
    except RuntimeError as error:
        # torch's, whose words are of its own sources.
        raise EngineInputError(
            "rendezvous", f"rank 0 at {seat.where} has ended", "see what it said"
        ) from error


def _agree(store: Store, seat: Seat, told: dict[str, str], deadline: float) -> None:
    store.set(_key(seat.rank), json.dumps(told))
    say = time.monotonic() + SAY_SECONDS
    missing = [rank for rank in range(seat.ranks) if rank != seat.rank]
    while missing:
        if store.check([_DIFFERS]):
            raise EngineInputError(*json.loads(store.get(_DIFFERS)))
        here = [rank for rank in missing if store.check([_key(rank)])]
        for rank in here:
            error = _difference(seat.rank, told, rank, json.loads(store.get(_key(rank))))
            if error is not None:
                # Not all look at this rank: with another --tp there may be none of this number.
                store.set(_DIFFERS, json.dumps([error.field, error.problem, error.mend]))
                raise error
        missing = [rank for rank in missing if rank not in here]
        if missing and not here:
            now, which = time.monotonic(), ", ".join(f"rank {rank}" for rank in missing)
            if now >= say and seat.rank == 0:
                logger.info("still missing at %s: %s", seat.where, which)
                say = math.inf
            if now >= deadline:
                problem = f"{which} did not come to {seat.where}"
                raise EngineInputError("rendezvous", problem, "start their nodes")
            time.sleep(_LOOK_SECONDS)


def _difference(
    rank: int, told: Mapping[str, str], other: int, theirs: Mapping[str, str]
) -> EngineInputError | None:
    """Return the first that two ranks were told otherwise, as an error; None: nothing."""
    for name in dict.fromkeys([*told, *theirs]):
        values = {rank: told.get(name), other: theirs.get(name)}
        if values[rank] != values[other]:
            words = ", ".join(
                f"{values[each] or 'nothing'} at rank {each}" for each in sorted(values)
            )
            option = name.replace("_", "-")
            return EngineInputError(option, words, "start all nodes with the same options")
    return None


def _key(rank: int) -> str:
    return f"told/{rank}"
