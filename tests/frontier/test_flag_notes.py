"""Flags in short: a line a kind, no point left out and none too many."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.frontier.comparison import compare
from upcurve.frontier.flag_notes import flag_notes
from upcurve.frontier.flags import Flag
from upcurve.frontier.grid import legend
from upcurve.frontier.point import Facts, Point

NAMES = ("tp1", "tp2", "tp2:peer_memory", "all off", "off a,b", "dp2")
ONCE, MISSING = Flag("few", "one run only"), Flag("missing", "no accuracy (yet)")
REACH = Flag("reach", "40 is partly of reach", "partly of reach")
PRICE = Flag("price", "cost assumes $2 (rental)")


def places(text: str, points: dict[str, list[str]]) -> set[tuple[str, str | None]]:
    """Return what the words in the brackets of a note name; None for a series as a whole."""
    head, but, rest = text.partition("all points but ")
    found: set[tuple[str, str | None]] = set()
    if but:
        every = {(name, at) for name, of in points.items() for at in of}
        found |= every - places(rest, points)
        text = head.removesuffix("; ")
    for part in filter(None, text.split("; ")):
        whole = re.match("(all points of|those of) ", part)
        names, _, at = part.rpartition(" at ") if " at " in part else (part, "", "")
        named = re.split(", | and ", names.removeprefix(whole[0]) if whole else names)
        if part == "all points":
            found |= {(name, at) for name, of in points.items() for at in of}
        elif part == "all series":
            found |= {(name, None) for name in points}
        elif whole:
            found |= {(name, at) for name in named for at in points[name]}
        else:
            found |= {(name, each) for name in named for each in (at.split(", ") if at else [None])}
    return found


def read(line: str, points: dict[str, list[str]]) -> set[tuple[str, str, str | None]]:
    """Return (kind, series, target) of all that a note says."""
    kind, _, said = line.partition(": ")
    brackets = re.findall(r" \(([^()]*)\)(?=; |\.$)", said)
    assert brackets, line
    return {(kind.replace(" ", "_"), *place) for each in brackets for place in places(each, points)}


def notes(at: dict[str, dict[float, list[Flag]]], whole: dict[str, list[Flag]] | None = None):
    return flag_notes(
        item
        for name, points in at.items()
        for item in [
            (name, None, (whole or {}).get(name, [])),
            *((name, target, flags) for target, flags in points.items()),
        ]
    )


def test_a_kind_is_one_line_with_its_points_by_series():
    found = notes(
        {
            "a": {20: [], 30: [], 40: [ONCE, REACH], 50: []},
            "b": {20: [], 30: [ONCE], 40: [ONCE, REACH], 50: []},
        }
    )
    assert found == [
        "few: one run only (a at 40; b at 30, 40).",
        "reach: partly of reach (a and b at 40).",
    ]


def test_what_holds_everywhere_is_said_in_two_words():
    at = {name: {20: [ONCE], 30: [ONCE, MISSING]} for name in "abc"}
    assert notes(at, {name: [PRICE] for name in "abc"}) == [
        "price: cost assumes $2 (rental) (all series).",
        "few: one run only (all points).",
        "missing: no accuracy (yet) (a, b and c at 30).",
    ]
    assert notes({"a": {40: [ONCE]}}, {"a": [PRICE]})[0].endswith("(a).")


def test_what_holds_nearly_everywhere_names_what_is_left():
    at = {name: {float(x): [ONCE] for x in range(20, 60, 10)} for name in "abcde"}
    at["b"][30] = []
    assert notes(at) == ["few: one run only (all points but b at 30)."]
    at["b"] = {x: [] for x in at["b"]}
    most = {name: dict(of) for name, of in at.items()} | {"c": {20: [], 30: [ONCE], 40: [], 50: []}}
    assert notes(most) == ["few: one run only (all points of a, d and e; c at 30)."]
    assert notes(at) == ["few: one run only (all points but those of b)."]


def test_a_series_that_is_flagged_throughout_is_said_as_a_whole():
    at = {name: {float(x): [] for x in range(20, 60, 10)} for name in "abc"}
    at["a"] = {x: [ONCE] for x in at["a"]}
    at["c"][20] = [ONCE]
    assert notes(at) == ["few: one run only (all points of a; c at 20)."]
    at["b"] = {20: [ONCE], 30: [ONCE]}
    at["d"] = {x: [] for x in at["a"]}
    assert notes(at) == ["few: one run only (all points of a; b at 20, 30; c at 20)."]


def test_reasons_of_one_kind_stand_in_one_line():
    eight, four = (Flag("few", f"runs of {n} requests") for n in (8, 4))
    at = {"a": {20: [ONCE, eight], 30: [ONCE, four]}, "b": {20: [ONCE, eight], 30: [ONCE]}}
    assert notes(at) == [
        "few: one run only (all points); runs of 8 requests (a and b at 20); "
        "runs of 4 requests (a at 30)."
    ]


def test_a_target_that_is_asked_for_twice_is_said_once():
    found = flag_notes([("a", 40, [ONCE]), ("a", 40, [ONCE]), ("b", 40, [])])
    assert found == ["few: one run only (a at 40)."]


def test_without_flags_nothing_is_said():
    assert flag_notes([("a", None, []), ("a", 40, [])]) == []
    assert flag_notes([("a", None, [PRICE])]) == ["price: cost assumes $2 (rental) (a)."]


FLAGS = st.lists(st.sampled_from([ONCE, MISSING, REACH, Flag("few", "two runs only")]), unique=True)
TARGETS = st.lists(st.integers(1, 12), min_size=1, unique=True)


@given(
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True).flatmap(
        lambda names: st.fixed_dictionaries(
            {
                name: st.tuples(
                    st.sampled_from([[], [PRICE], [Flag("price", "cost assumes $3")]]),
                    st.dictionaries(st.integers(1, 12), FLAGS | st.just([ONCE]), max_size=12),
                )
                for name in names
            }
        )
    )
)
def test_notes_say_every_flag_of_every_point_and_no_other(series):
    given_flags = {name: at for name, (_, at) in series.items()}
    found = notes(given_flags, {name: whole for name, (whole, _) in series.items()})
    points = {name: [f"{target:g}" for target in at] for name, at in given_flags.items()}
    expected = {
        (flag.code, name, place)
        for name, (whole, at) in series.items()
        for place, flags in [(None, whole), *((f"{x:g}", of) for x, of in at.items())]
        for flag in flags
    }
    said = [read(line, points) for line in found]
    assert set().union(*said) == expected
    assert len(found) == len({code for code, _, _ in expected})


CODES = (
    *("regime_extension", "end_segment_sensitivity", "too_few_samples", "reach_uncertain"),
    *("inside_noise", "client_saturated", "partial_failures", "accuracy_missing"),
    *("accuracy_failed", "mixed_fingerprints", "price_assumption"),
)
FACTS = st.builds(
    Facts,
    requests=st.sampled_from([8, 640]),
    failed=st.sampled_from([0, 3]),
    client_saturated=st.booleans(),
    output_length_ok=st.booleans(),
    accuracy_passed=st.sampled_from([True, False, None]),
)


@st.composite
def measured(draw):
    """Draw points of a series, once or in three rounds."""
    places = draw(
        st.lists(
            st.tuples(st.integers(10, 60), st.integers(100, 3000)),
            min_size=1,
            max_size=5,
            unique_by=(lambda each: each[0], lambda each: each[1]),
        )
    )
    points = [
        Point(x, y, 1, 1, concurrency + 1, facts=draw(st.none() | FACTS))
        for concurrency, (x, y) in enumerate(places)
    ]
    rounds = draw(st.sampled_from([1, 1, 3]))
    return [
        replace(each, repeat=index, tput_per_gpu=each.tput_per_gpu * (1 + index / 50))
        for index in range(rounds)
        for each in points
    ]


@settings(max_examples=40)
@given(st.lists(measured(), min_size=1, max_size=4), TARGETS, st.sets(st.sampled_from(NAMES)))
def test_under_a_table_stands_every_flag_of_its_json(series, tens, priced):
    names = NAMES[: len(series)]
    found = compare(
        dict(zip(names, series, strict=True)),
        baseline=names[0],
        targets=[5.0 * each for each in tens],
        usd_per_gpu_hour={},
        flags={
            name: [PRICE, Flag("mixed_fingerprints", "it joins 2")] for name in priced & set(names)
        },
    )
    told = found.to_dict()
    points: dict[str, list[str]] = {}
    expected = set()
    for each in told["series"]:
        expected |= {(flag["code"], each["name"], None) for flag in each["flags"]}
        points[each["name"]] = []
        for reading in each["at"]:
            place = f"{reading['interactivity']:g}"
            expected |= {(flag["code"], each["name"], place) for flag in reading["flags"]}
            if reading["tput_per_gpu"] is not None:
                points[each["name"]].append(place)
    kinds = {code.replace("_", " ") for code in (*CODES, "price")}
    lines = [line for line in legend(found, {}) if line.partition(": ")[0] in kinds]
    assert set().union(*(read(line, points) for line in lines)) == expected
    assert len(lines) == len({code for code, _, _ in expected})
