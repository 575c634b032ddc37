"""Values of configurations in rounds: whole rounds only, no extrapolation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from upcurve.errors import InputError
from upcurve.frontier.attribution import Value
from upcurve.frontier.comparison import compare
from upcurve.frontier.point import Facts, Point
from upcurve.frontier.rounds import common_range, doubts, read_rounds, whole_rounds

ON, OFF = frozenset({"a"}), frozenset()


def points(scale: float, rounds: int = 2, top: float = 60) -> list[Point]:
    return [
        Point(top / c, scale * (1 + r / 100) * c**0.5, tp=1, gpus=1, concurrency=c, repeat=r)
        for r in range(rounds)
        for c in (1, 2, 4, 8)
    ]


def test_a_round_is_read_as_compare_reads_a_curve() -> None:
    found = read_rounds({OFF: points(10), ON: points(20)}, 40)
    assert sorted(found) == [0, 1]
    for index in (0, 1):
        alone = [p for p in points(20) if p.repeat == index]
        series = compare({"x": alone}, baseline="x", targets=[40], usd_per_gpu_hour={}).series
        assert found[index][ON].tput_per_gpu == series[0].at[0].tput_per_gpu
        assert found[index][ON].end
    assert not read_rounds({OFF: points(10)}, 20)[0][OFF].end


def test_nothing_is_extrapolated() -> None:
    found = read_rounds({OFF: points(10, top=30), ON: points(20)}, 40)[0]
    assert found[OFF] == Value(None, "its frontier ends at 30 tok/s/user")
    assert found[ON].tput_per_gpu is not None
    found = read_rounds({OFF: points(10)}, 5)[0]
    assert found[OFF] == Value(None, "its frontier begins at 7.5 tok/s/user")


def test_a_round_that_lacks_a_point_is_no_round() -> None:
    lacking = [p for p in points(10, rounds=3) if (p.repeat, p.concurrency) != (1, 4)]
    assert list(whole_rounds(lacking)) == [0, 2]
    assert sorted(read_rounds({OFF: lacking}, 40)) == [0, 2]
    assert read_rounds({OFF: lacking}, 40, rounds=[1]) == {1: {}}


def test_the_common_range_is_where_every_round_has_a_value() -> None:
    assert common_range({OFF: points(10, top=30), ON: points(20)}) == (7.5, 30)
    assert common_range({OFF: points(10, top=6), ON: points(20)}) is None
    assert common_range({}) is None


@pytest.mark.parametrize(("target", "rule", "field"), [(0, "linear", "at"), (40, "no", "rule")])
def test_bad_input_is_named(target: float, rule: str, field: str) -> None:
    with pytest.raises(InputError, match=field):
        read_rounds({OFF: points(1)}, target, rule=rule)


def test_doubts_are_of_the_points_beside_the_target() -> None:
    def known(concurrency: int) -> Facts:
        return Facts(requests=200, client_saturated=concurrency == 2, accuracy_passed=True)

    own = [replace(point, facts=known(point.concurrency)) for point in points(10, rounds=3)]
    # 60 / c: concurrencies 1 and 2 lie beside 40 tok/s/user, 4 and 8 beside 10.
    beside, elsewhere = doubts({ON: own}, 40), doubts({ON: own}, 10)
    assert [flag.code for flag in beside[ON]] == ["client_saturated"]
    assert "in 3 of 6 runs" in beside[ON][0].text
    assert elsewhere == {ON: []}
    assert doubts({ON: own, OFF: []}, 61) == {}
