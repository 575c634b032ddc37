"""Switches of an ablation: what each adds to a recipe where it is on, or takes away where off."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from upcurve.errors import InputError
from upcurve.records.environment import redacted
from upcurve.sweep.recipe import Recipe, load_recipe

EXAMPLES = "give NAME, env:NAME=VALUE, flag:--x=y or set:KEY=VALUE"
FIXED = ("name", "series", "repeats", "workload", "concurrency")
"""Keys of a recipe that say what is measured, not what it is measured on."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SEPARATOR = re.compile(r"(?<!\\),")


@dataclass(frozen=True, slots=True)
class Switch:
    """One thing that can be on or off."""

    kind: Literal["engine", "env", "flag", "set"]
    value: str
    """A name, NAME=VALUE, words of a command, KEY=VALUE."""

    @property
    def label(self) -> str:
        """The switch as it was given; the value of what looks like a key is left out."""
        if self.kind == "engine":
            return self.value
        if self.kind == "env":
            name, _, value = self.value.partition("=")
            return f"env:{name}={redacted({name: value})[name]}"
        return f"{self.kind}:{self.value}"


def parse_switches(texts: Sequence[str]) -> tuple[Switch, ...]:
    r"""Return the switches of comma-separated lists; `\,` is a comma within a value.

    Raises:
        InputError: none is given, one cannot be read, or two set the same thing.
    """
    items = [part.replace("\\,", ",").strip() for text in texts for part in _SEPARATOR.split(text)]
    switches = [_parse(item) for item in items if item]
    if not switches:
        raise InputError("--switch", "no switch is given", EXAMPLES)
    targets = [_target(switch) for switch in switches]
    for position, target in enumerate(targets):
        if target in targets[:position]:
            raise InputError("--switch", f"{target!r} is given twice", "give each switch once")
    return tuple(switches)


def switched(
    path: Path, overrides: Sequence[str], switches: Sequence[Switch], on: Collection[str]
) -> Recipe:
    """Return the recipe of a file with some switches on and all others off.

    Args:
        path: the recipe.
        overrides: `key=value` for every configuration.
        switches: all of them.
        on: the labels of those that are on.

    Raises:
        InputError: the recipe or a switch on it cannot be used.
    """
    chosen = [switch for switch in switches if switch.label in on]
    settings = [switch.value for switch in chosen if switch.kind == "set"]
    recipe = load_recipe(path, [*overrides, *settings])
    command, env = list(recipe.engine.command), dict(recipe.engine.env)
    for switch in chosen:
        if switch.kind == "env":
            name, _, value = switch.value.partition("=")
            env[name] = value
        elif switch.kind == "flag":
            command += shlex.split(switch.value)
    off = [each.value for each in switches if each.kind == "engine" and each not in chosen]
    if any(switch.kind == "engine" for switch in switches) and any(
        word == "--off" or word.startswith("--off=") for word in command
    ):
        mend = "take it out of the command: --switch gives it"
        raise InputError("engine.command", "it says --off already", mend)
    if off:
        command += ["--off", ",".join(off)]
    label = series_label([each.label for each in switches], on)
    return recipe.model_copy(
        update={
            "series": f"{recipe.series}: {label}",
            "name": f"{recipe.name}: {label}",
            "engine": recipe.engine.model_copy(update={"command": command, "env": env}),
        }
    )


def series_label(switches: Sequence[str], on: Collection[str]) -> str:
    """Return a configuration in words: "all on", "all off" or "off a,b"."""
    off = [switch for switch in switches if switch not in on]
    if not off:
        return "all on"
    return "all off" if len(off) == len(switches) else f"off {','.join(off)}"


def _parse(item: str) -> Switch:
    kind, colon, value = item.partition(":")
    if not colon and _NAME.fullmatch(item):
        return Switch("engine", item)
    if kind == "env" and _VARIABLE.match(value):
        return Switch("env", value)
    if kind == "flag" and value.startswith("-"):
        try:
            shlex.split(value)
        except ValueError as error:
            raise InputError(f"--switch {item}", str(error), "close the quotes") from error
        return Switch("flag", value)
    if kind == "set" and "=" in value:
        key = value.partition("=")[0].strip()
        if key.partition(".")[0] in FIXED:
            problem = f"{key} says what is measured, so configurations could not be compared"
            raise InputError(f"--switch {item}", problem, "give it with --set for all of them")
        return Switch("set", value)
    raise InputError("--switch", f"{item!r} is no switch", EXAMPLES)


def _target(switch: Switch) -> str:
    """Return what a switch sets: two switches of one target would exclude each other."""
    if switch.kind in ("env", "set"):
        return f"{switch.kind}:{switch.value.partition('=')[0].strip()}"
    return switch.label
