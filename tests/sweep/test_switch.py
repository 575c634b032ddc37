"""Switches: read from text, applied to a recipe, refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from upcurve.errors import InputError
from upcurve.sweep.switch import Switch, parse_switches, series_label, switched

COMMAND = ["engine", "--port", "{port}"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "r.yaml"
    engine = {"name": "e", "command": COMMAND, "env": {"KEEP": "1", "MODE": "slow"}}
    load = {"isl": 8, "osl": 4}
    values = {"name": "r", "model": "m", "hardware": "CPU", "engine": engine, "workload": load}
    file.write_text(yaml.safe_dump(values | {"concurrency": [1]}))
    return file


def test_every_kind_is_read_and_a_comma_can_be_kept() -> None:
    found = parse_switches(["fused_norm, env:A=1", r"flag:--sizes=1\,2,set:engine.image=a:b=c"])
    assert found == (
        Switch("engine", "fused_norm"),
        Switch("env", "A=1"),
        Switch("flag", "--sizes=1,2"),
        Switch("set", "engine.image=a:b=c"),
    )
    assert [each.label for each in found][1:3] == ["env:A=1", "flag:--sizes=1,2"]


def test_a_key_is_no_part_of_a_label() -> None:
    (switch,) = parse_switches(["env:HF_TOKEN=hf_0123456789"])
    assert switch.label == "env:HF_TOKEN=(redacted)"


def test_all_on_and_all_off_and_what_lies_between(path: Path) -> None:
    switches = parse_switches(["a,b,env:MODE=fast,flag:--x 3,set:engine.image=new"])
    labels = [each.label for each in switches]
    off = switched(path, [], switches, [])
    assert off.engine.command == [*COMMAND, "--off", "a,b"]
    assert off.engine.env == {"KEEP": "1", "MODE": "slow"}
    assert (off.series, off.name, off.engine.image) == ("r: all off", "r: all off", "")
    on = switched(path, [], switches, labels)
    assert on.engine.command == [*COMMAND, "--x", "3"]
    assert on.engine.env == {"KEEP": "1", "MODE": "fast"}
    assert (on.series, on.engine.image) == ("r: all on", "new")
    some = switched(path, ["tp=2"], switches, ["a", labels[2]])
    assert some.engine.command == [*COMMAND, "--off", "b"]
    assert (some.series, some.tp) == ("r: off b,flag:--x 3,set:engine.image=new", 2)
    assert series_label(["a"], []) == "all off"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "--switch: no switch is given; give NAME, env:NAME=VALUE"),
        ("a,a", "--switch: 'a' is given twice"),
        ("env:A=1,env:A=2", "--switch: 'env:A' is given twice"),
        ("env:A", "--switch: 'env:A' is no switch; give NAME"),
        ("flag:x", "--switch: 'flag:x' is no switch"),
        ("a b", "--switch: 'a b' is no switch"),
        ("flag:--x='1", "--switch flag:--x='1: No closing quotation; close the quotes"),
        ("set:workload.isl=4", "--switch set:workload.isl=4: workload.isl says what is measured"),
    ],
)
def test_what_is_no_switch_is_one_line(text: str, line: str) -> None:
    with pytest.raises(InputError) as error:
        parse_switches([text])
    assert str(error.value).startswith(line)


def test_a_command_that_turns_switches_off_itself_is_refused(path: Path) -> None:
    switches = parse_switches(["a"])
    with pytest.raises(InputError, match=r"engine.command: it says --off already; take it out"):
        switched(path, ["engine.command=engine --port {port} --off=b"], switches, [])
