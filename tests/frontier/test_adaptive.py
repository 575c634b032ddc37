"""Choosing concurrencies: within the budget, nothing twice, around the target, near the truth."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.frontier.adaptive import choose, estimate, is_precise, why
from upcurve.frontier.goal import Goal, Target
from upcurve.frontier.point import Point


@dataclass(frozen=True)
class Server:
    """Step time = fixed + slope x c ^ power; a request is 1024 steps and a prefill of its own."""

    fixed: float
    slope: float
    power: float
    prefill: float

    def interactivity(self, c: float) -> float:
        return 1 / (self.fixed + self.slope * c**self.power)

    def throughput(self, c: float) -> float:
        return c * 9216 / (1024 / self.interactivity(c) + self.prefill * c)

    def point(self, c: int, repeat: int = 0, noise: float = 0.0, seed: int = 0) -> Point:
        draws = random.Random(f"{seed} {c} {repeat}")
        speed, tput = (
            value * math.exp(draws.gauss(0, noise))
            for value in (self.interactivity(c), self.throughput(c))
        )
        return Point(speed, tput, 1, 1, c, repeat)

    def concurrency_at(self, interactivity: float) -> float:
        return ((1 / interactivity - self.fixed) / self.slope) ** (1 / self.power)


def sweep(
    server: Server,
    goal: Goal,
    *,
    noise: float = 0.0,
    seed: int = 0,
    bad: frozenset[int] = frozenset(),
) -> tuple[list[Point], list[int]]:
    points: list[Point] = []
    failed: list[int] = []
    for index in range(goal.rounds):
        while (at := choose(points, goal, index, failed)) is not None:
            if at in bad:
                failed.append(at)
            else:
                points.append(server.point(at, index, noise, seed))
            assert len(points) + len(failed) <= goal.max_points
    return points, failed


servers = st.builds(
    Server,
    fixed=st.floats(0.002, 0.03),
    slope=st.floats(1e-4, 2e-3),
    power=st.floats(0.6, 1.2),
    prefill=st.floats(0.0, 0.3),
)
targets = st.builds(
    Target, axis=st.sampled_from(["interactivity", "tput_per_gpu"]), value=st.floats(1, 1e5)
)


@settings(max_examples=60, deadline=None)
@given(
    servers,
    st.lists(targets, min_size=1, max_size=3),
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.006, 0.023, 0.2]),
    st.frozensets(st.integers(1, 300), max_size=20),
)
def test_it_ends_within_budget_and_measures_nothing_twice(
    server: Server,
    of: list[Target],
    highest: int,
    budget: int,
    rounds: int,
    noise: float,
    bad: frozenset[int],
) -> None:
    goal = Goal(tuple(of), 0.02, highest, budget, rounds)
    points, failed = sweep(server, goal, noise=noise, bad=bad)
    assert all(1 <= each.concurrency <= highest for each in points)
    measured = [(each.concurrency, each.repeat) for each in points]
    assert len(set(measured)) == len(measured)
    assert len(set(failed)) == len(failed)
    for each in of:
        found = estimate(points, each, goal, failed)
        if found.value is not None:
            assert found.value > 0
        elif found.status in ("unreachable", "below_range"):
            assert {1, highest} & {point.concurrency for point in points}
        assert why(found, goal, len(points) + len(failed))


@settings(max_examples=60, deadline=None)
@given(servers, st.floats(1, 256))
def test_a_reachable_target_is_bracketed_and_its_value_is_near_the_truth(
    server: Server, at: float
) -> None:
    target = Target("interactivity", server.interactivity(at))
    goal = Goal((target,), 0.02, 256, 20)
    points, _ = sweep(server, goal)
    found = estimate(points, target, goal)
    if found.value is not None:
        assert found.status in ("resolved", "finest")
        truth = server.throughput(server.concurrency_at(target.value))
        if found.status == "resolved":
            assert found.value == pytest.approx(truth, rel=0.02)
    else:  # on the very end of the range
        assert at == pytest.approx(1, rel=1e-6) or at == pytest.approx(256, rel=1e-6)


SERVER = Server(fixed=0.004, slope=3e-4, power=1.0, prefill=0.05)


def test_a_cost_is_the_throughput_that_it_takes() -> None:
    target = Target.of_cost(0.1, 2.5)
    assert 2.5 / (target.value * 3600 / 1e6) == pytest.approx(0.1)
    goal = Goal((target,), 0.02, 256, 12)
    points, _ = sweep(SERVER, goal)
    found = estimate(points, target, goal)
    assert found.value is not None
    # throughput = 9216 c / (1024 (0.004 + 0.0003 c) + 0.05 c), solved for c
    c = target.value * 4.096 / (9216 - target.value * 0.3572)
    assert found.value == pytest.approx(SERVER.interactivity(c), rel=0.02)


def test_a_target_beyond_the_best_says_what_is_the_best() -> None:
    target = Target("interactivity", 300)
    goal = Goal((target,), 0.02, 256, 12, 3)
    points, _ = sweep(SERVER, goal)
    found = estimate(points, target, goal)
    assert (found.status, found.value) == ("unreachable", None)
    best = f"{1 / 0.0043:.2f}"
    assert why(found, goal, 3) == f"unreachable: the best interactivity is {best} at concurrency 1"
    assert {each.repeat for each in points} == {0}


def test_a_target_below_the_slowest_is_below_the_range() -> None:
    target = Target("interactivity", 5)
    goal = Goal((target,), 0.02, 256, 12)
    points, _ = sweep(SERVER, goal)
    found = estimate(points, target, goal)
    assert found.status == "below_range"
    assert why(found, goal, 3).endswith(f"is {1 / 0.0808:.2f} at concurrency 256")


def test_a_cost_that_no_load_reaches_is_unreachable() -> None:
    target = Target("tput_per_gpu", 1e6)
    goal = Goal((target,), 0.02, 64, 12)
    points, _ = sweep(SERVER, goal)
    found = estimate(points, target, goal)
    assert found.status == "unreachable"
    assert max(each.concurrency for each in points) == 64


def test_repeats_go_to_what_the_value_rests_on_until_noise_is_small() -> None:
    target = Target("interactivity", 60)
    goal = Goal((target,), 0.03, 256, 60, 20)
    points, _ = sweep(SERVER, goal, noise=0.006, seed=3)
    found = estimate(points, target, goal)
    assert is_precise(found, goal)
    assert found.noise is not None
    again = {each.concurrency for each in points if each.repeat}
    assert again == set(found.repeat)
    assert len(again) < len({each.concurrency for each in points}) or len(again) <= 3
    assert len(points) < 40
    assert why(found, goal, len(points)).startswith("reached precision 3 %: interpolation")


def test_noise_is_unknown_below_three_rounds_and_said_so() -> None:
    target = Target("interactivity", 60)
    goal = Goal((target,), 0.02, 256, 60, 1)
    points, _ = sweep(SERVER, goal)
    found = estimate(points, target, goal)
    assert (found.noise, found.error) == (None, None)
    assert why(found, goal, len(points)).endswith("noise unknown")


def test_noise_is_the_student_interval_of_whole_rounds() -> None:
    target = Target("interactivity", 60)
    goal = Goal((target,), 0.02, 256, 60, 3)
    points, _ = sweep(SERVER, replace(goal, rounds=1))
    # Every point of a round 1 % up or down in throughput: so is the value read from it.
    rounds = [
        replace(each, repeat=index, tput_per_gpu=each.tput_per_gpu * math.exp(shift))
        for index, shift in enumerate((-0.01, 0.0, 0.01))
        for each in points
    ]
    found = estimate(rounds, target, goal)
    margin = 4.302653 * 0.01 / math.sqrt(3)  # Student's t of 2 degrees of freedom, 97.5 %
    assert found.noise == pytest.approx(math.sinh(margin), rel=1e-4)


def test_a_concurrency_that_failed_is_passed_by() -> None:
    target = Target("interactivity", 60)
    goal = Goal((target,), 0.02, 256, 30)
    first = choose([], goal)
    assert first is not None
    points, failed = sweep(SERVER, goal, bad=frozenset({first}))
    assert failed == [first]
    assert estimate(points, target, goal, failed).status == "resolved"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"targets": ()}, "targets"),
        ({"targets": (Target("interactivity", math.nan),)}, "targets"),
        ({"precision": 0.0}, "precision"),
        ({"highest": 0}, "highest"),
        ({"max_points": 0}, "max_points"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_a_goal_that_cannot_be_is_refused(changes: dict[str, object], field: str) -> None:
    values = {"targets": (Target("interactivity", 40),), "precision": 0.02, "highest": 8}
    with pytest.raises(InputError) as refused:
        Goal(**({**values, "max_points": 3} | changes))  # type: ignore[arg-type]
    assert refused.value.field == field
