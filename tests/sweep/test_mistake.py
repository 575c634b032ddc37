"""Each kind of mistake in a recipe is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweep.examples import recipe_file
from upcurve.errors import InputError
from upcurve.sweep.recipe import load_recipe


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("engin=1", "engin: unknown key; did you mean 'engine'?"),
        ("engine.comand=x", "engine.comand: unknown key; did you mean 'command'?"),
        ("engine.health.timeout=3", "engine.health.timeout: unknown key; did you mean 'timeout_s'"),
        ("workload.qqq=1", "workload.qqq: unknown key; the keys here are isl, osl, requests_per"),
        ("workload.isl=abc", "workload.isl: 'abc' cannot be used; give a whole number"),
        ("workload.isl=true", "workload.isl: True cannot be used; give a whole number"),
        ("workload.isl=1.5", "workload.isl: 1.5 cannot be used; give a whole number"),
        ("workload.isl=0", "workload.isl: 0 cannot be used; input should be greater than"),
        ("workload=3", "workload: 3 cannot be used; give keys and values below it"),
        ("concurrency=[]", "concurrency: [] cannot be used; give at least one item"),
        ("concurrency=4", "concurrency: 4 cannot be used; give a list, e.g. [1, 2, 4]"),
        ("concurrency=[1, a]", "concurrency.1: 'a' cannot be used; give a whole number"),
        ("engine.version=0.10", "engine.version: 0.1 is read as a float; put it in quotes"),
        ("engine.env.A=true", "engine.env.A: True is read as a bool; put it in quotes"),
        ("name=", "name: None cannot be used; give text"),
    ],
)
def test_a_mistake_is_one_line_with_key_problem_and_mend(
    tmp_path: Path, override: str, line: str
) -> None:
    path = recipe_file(tmp_path / "small.yaml")
    with pytest.raises(InputError) as caught:
        load_recipe(path, [override])
    message = str(caught.value)
    assert message.startswith(f"recipe {path}: {line}")
    assert "\n" not in message
