"""Which ranks a command starts, and where they meet."""

from __future__ import annotations

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.seat import Node, check_one_command, node_of


def test_one_node_has_all_ranks_and_every_node_its_part() -> None:
    assert node_of(4, environment={}) == Node(0, 4, 4, "127.0.0.1", 0)
    node = node_of(8, nodes=2, node_rank=1, rendezvous="[fd00::1]:29400", environment={})
    assert node == Node(4, 4, 8, "fd00::1", 29400)
    assert not node.leads
    # Each node has GPUs of its own.
    assert [(seat.rank, seat.gpu, seat.port) for seat in node.seats()] == [
        (4, 0, 29400),
        (5, 1, 29400),
        (6, 2, 29400),
        (7, 3, 29400),
    ]
    assert node_of(2, environment={}).seats(5)[1].port == 5


def test_under_torchrun_a_command_is_one_rank() -> None:
    environment = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0"}
    node = node_of(4, environment=environment)
    assert node == Node(3, 1, 4, "node0", 29400, gpu=1)
    hosted = {**environment, "MASTER_PORT": "77", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    (seat,) = node_of(4, environment=hosted).seats()
    assert (seat.rank, seat.gpu, seat.port, seat.hosted) == (3, 1, 77, True)


def test_a_command_that_starts_all_ranks_is_not_started_for_each() -> None:
    with pytest.raises(EngineInputError, match="dp: torchrun starts each rank, and this"):
        check_one_command("dp", {"RANK": "0", "WORLD_SIZE": "2"})
    for environment in ({}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "2"}):
        check_one_command("dp", environment)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes": 3}, "nodes: 3 do not share 4 ranks evenly"),
        ({"nodes": 2}, "rendezvous: several nodes need one"),
        ({"nodes": 2, "node_rank": 2, "rendezvous": "a:1"}, "node-rank: 2 is not in 0..1"),
        ({"rendezvous": "here"}, "rendezvous: 'here' is no address"),
        ({"rendezvous": "a:0"}, "rendezvous: 'a:0' is no address"),
        ({"environment": {"RANK": "0", "WORLD_SIZE": "2"}}, "WORLD_SIZE: rank 0 of 2"),
        ({"environment": {"RANK": "x", "WORLD_SIZE": "4"}}, "RANK, WORLD_SIZE"),
    ],
)
def test_numbers_that_do_not_go_together(options: dict[str, object], words: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        node_of(4, **{"environment": {}, **options})  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_every_head_expert_and_width_has_its_ranks() -> None:
    for layout in (Layout(4), Layout(4, 2), Layout(4, 4), Layout(2, 4, 2), Layout(2, 2, 3)):
        shares = [layout.share(rank) for rank in range(layout.engine_ranks)]
        replicas = layout.dp if layout.joined else 1
        heads = [share.head for share in shares]
        assert sorted(heads) == sorted([*range(layout.tp)] * replicas)
        places = {(share.expert, share.width) for share in shares}
        assert len(places) == layout.engine_ranks
        assert {share.experts for share in shares} == {layout.ep}
        # Together the ranks count the shared expert once: its widths are summed as they are.
        whole = sum(share.shared_scale / share.widths for share in shares)
        assert whole == pytest.approx(1)
