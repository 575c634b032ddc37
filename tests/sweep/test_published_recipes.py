"""The recipes that ship: each is read, and says what the published rows say."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import upcurve
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(FOLDER.glob("*.yaml"))
ROWS = Path(upcurve.__file__).parent / "records" / "published"


def rows(name: str) -> list[dict[str, str]]:
    with (ROWS / name).open() as file:
        return list(csv.DictReader(file))


def test_there_are_recipes() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_read_and_named_as_its_file(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.command(host="127.0.0.1", port=1)


@pytest.mark.parametrize("date", ["feb", "apr", "may"])
def test_the_layouts_are_those_of_the_published_rows(date: str) -> None:
    published = [r for r in rows("mi355x_qwen35_397b_fp8_8k1k.csv") if r["series"] == date]
    facts = ["hardware", "engine", "engine_version", "image", "model", "precision"]
    facts += ["isl", "osl", "tp", "gpus", "concurrency"]
    recipes = [load_recipe(path) for path in FILES if f"mi355x-{date}" in path.stem]
    ours = {
        tuple(
            str(fact)
            for fact in (
                *(each.hardware, each.engine.name, each.engine.version, each.engine.image),
                *(each.model, each.precision, each.workload.isl, each.workload.osl),
                *(each.tp, each.gpus, concurrency),
            )
        )
        for each in recipes
        for concurrency in each.concurrency
    }
    assert ours == {tuple(row[fact] for fact in facts) for row in published}
    assert len({each.series for each in recipes}) == 1


@pytest.mark.parametrize("date", ["apr", "may"])
def test_the_two_layouts_of_a_date_share_a_fingerprint(date: str) -> None:
    recipes = [load_recipe(path) for path in FILES if f"mi355x-{date}" in path.stem]
    records = run_records(recipes, Machine(host={}, gpus=[], software={}))
    assert [each.tp for each in recipes] == [2, 4]
    assert len({record.fingerprint for record in records}) == 1


def test_the_vllm_recipe_has_the_concurrencies_of_its_rows() -> None:
    recipe = load_recipe(FOLDER / "qwen35-35b-fp8-h200-vllm.yaml")
    published = rows("h200_qwen35_35b_fp8_8k1k_vllm.csv")
    assert [str(each) for each in recipe.concurrency] == [row["concurrency"] for row in published]
    assert recipe.engine.version == published[0]["engine_version"]
