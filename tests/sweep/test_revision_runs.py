"""Which figure of a run is compared, and what a recipe becomes for a revision."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sweep.examples import values
from upcurve.sweep.bisection import RevisionError
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.revision import Revision
from upcurve.sweep.revision_runs import Question, recipe_of


def row(interactivity: float, throughput: float) -> dict[str, Any]:
    place = {"tp": 1, "gpus": 1, "ttft_ms": None, "tpot_ms": 1000 / interactivity}
    return place | {"interactivity": interactivity, "tput_per_gpu": throughput}


def test_one_point_gives_its_own_figure() -> None:
    rows = [row(50.0, 400.0)]
    assert Question("tput_per_gpu", None).read(rows) == 400
    assert Question("interactivity", None).read(rows) == 50
    assert Question("tpot", None).read(rows) == 20
    with pytest.raises(RevisionError, match="its ttft is None"):
        Question("ttft", None).read(rows)


def test_at_reads_the_frontier_of_the_run_and_never_beyond_it() -> None:
    rows = [row(50.0, 400.0), row(30.0, 300.0), row(40.0, 600.0)]  # the second is dominated
    assert Question("tput_per_gpu", 45).read(rows) == pytest.approx(500)
    assert Question("tput_per_gpu", 40).read(rows) == 600
    with pytest.raises(RevisionError, match="reaches from 40 to 50 tok/s/user, not 30"):
        Question("tput_per_gpu", 30).read(rows)


def test_the_recipe_of_a_revision_says_which_it_is() -> None:
    given = values()
    given["engine"]["command"] = ["{repository}/serve", "--port", "{port}"]
    with pytest.raises(ValueError, match=r"its command says \{repository}, and none is given"):
        Recipe.model_validate(given)
    given["engine"]["repository"] = "there"
    recipe = recipe_of(Recipe.model_validate(given), Revision("0123456789abcdef", ""), "a b")
    assert recipe.series == "small@0123456789"
    assert recipe.engine.commit == "0123456789abcdef"
    assert recipe.command(host="h", port=1) == ["a b/serve", "--port", "1"]
