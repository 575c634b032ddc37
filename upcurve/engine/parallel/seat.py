"""Where a rank sits: its number, its node's place in it, and where it meets the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from upcurve.engine.errors import EngineInputError

PORT = 29_400
"""Of the rendezvous, where none is given with several nodes."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One rank's place."""

    rank: int = 0
    ranks: int = 1
    """All that compute together."""
    gpu: int = 0
    """Which of the node's visible GPUs is this rank's."""
    host: str = "127.0.0.1"
    port: int = 0
    """Of the rendezvous: the first rank's store listens there."""
    hosted: bool = False
    """Whether the store is there already, as torchrun's is."""

    @property
    def where(self) -> str:
        """HOST:PORT of the rendezvous."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Node:
    """The seats that one command fills."""

    first: int
    count: int
    ranks: int
    host: str
    port: int
    gpu: int = 0
    """Of the first seat."""
    hosted: bool = False

    def seats(self, port: int | None = None) -> list[Seat]:
        """Return them; `port` replaces that of the rendezvous."""
        return [
            Seat(
                self.first + index,
                self.ranks,
                self.gpu + index,
                self.host,
                self.port if port is None else port,
                self.hosted,
            )
            for index in range(self.count)
        ]

    @property
    def leads(self) -> bool:
        """Whether the first rank is one of them."""
        return self.first == 0


def node_of(
    ranks: int,
    *,
    nodes: int = 1,
    node_rank: int = 0,
    rendezvous: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Node:
    """Return which ranks this command starts.

    Under torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) it is one; otherwise
    those of its node, which has as many as every other.

    Args:
        ranks: of the layout.
        nodes: machines.
        node_rank: of this one.
        rendezvous: HOST:PORT of the first rank; not needed on one node.
        environment: variables.

    Raises:
        EngineInputError: the numbers do not go together.
    """
    if nodes == 1 and "RANK" in environment and "WORLD_SIZE" in environment:
        return _under_torchrun(ranks, environment)
    if ranks % nodes:
        raise EngineInputError(
            "nodes", f"{nodes} do not share {ranks} ranks evenly", "give a divisor of tp * dp"
        )
    if not 0 <= node_rank < nodes:
        raise EngineInputError(
            "node-rank", f"{node_rank} is not in 0..{nodes - 1}", "count the nodes from 0"
        )
    if nodes > 1 and rendezvous is None:
        raise EngineInputError(
            "rendezvous", "several nodes need one", f"give --rendezvous HOST:{PORT} of node 0"
        )
    host, port = ("127.0.0.1", 0) if rendezvous is None else address_of(rendezvous, "rendezvous")
    each = ranks // nodes
    return Node(node_rank * each, each, ranks, host, port)


def check_one_command(option: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check that a command which starts all ranks is not started once for each.

    Args:
        option: that makes it one.
        environment: variables.

    Raises:
        EngineInputError: torchrun has started it, and others.
    """
    if "RANK" in environment and environment.get("WORLD_SIZE", "1") != "1":
        raise EngineInputError(
            option, "torchrun starts each rank, and this command all", "start it without torchrun"
        )


def _under_torchrun(ranks: int, environment: Mapping[str, str]) -> Node:
    try:
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_RANK", rank))
        port = int(environment.get("MASTER_PORT", PORT))
    except ValueError as error:
        raise EngineInputError(
            "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_PORT", str(error), "give whole numbers"
        ) from error
    if world != ranks or not 0 <= rank < world:
        raise EngineInputError(
            "WORLD_SIZE",
            f"rank {rank} of {world}, but the layout has {ranks} ranks",
            f"start {ranks}, or change --tp",
        )
    hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host = environment.get("MASTER_ADDR", "127.0.0.1")
    return Node(rank, 1, ranks, host, port, local, hosted)


def address_of(text: str, field: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT, which the user calls `field`.

    Raises:
        EngineInputError: it is no address.
    """
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise EngineInputError(field, f"{text!r} is no address", "give HOST:PORT")
    return host.strip("[]"), int(port)
