"""Prices of recipes, known before anything is measured."""

from __future__ import annotations

from datetime import date

import pytest

from tests.sweep.examples import recipe
from upcurve.errors import InputError
from upcurve.frontier.cost import PriceTable
from upcurve.sweep.prices import recipe_prices

TABLE = PriceTable.from_csv(
    ["hardware,tier,valid_from,usd_per_gpu_hour", "H200,rental,2026-01-01,2.5"]
)
DAY = date(2026, 6, 1)


def test_given_prices_go_before_the_table_and_what_has_none_is_said() -> None:
    both = [recipe(hardware="H200"), recipe(hardware="CPU")]
    found, notes = recipe_prices(both, TABLE, tier="rental", on=DAY, given={})
    assert found["H200"].usd_per_gpu_hour == 2.5
    assert notes == ["No cost, because CPU has no price; give --price CPU=USD."]
    found, notes = recipe_prices(both, TABLE, tier="rental", on=DAY, given={"CPU": 1, "H200": 3})
    assert ({name: each.usd_per_gpu_hour for name, each in found.items()}, notes) == (
        {"CPU": 1, "H200": 3},
        [],
    )


@pytest.mark.parametrize(
    ("tier", "given", "line"),
    [("rental", {"B200": 1.0}, "price: the recipe does not run on 'B200'"), ("spot", {}, "tier:")],
)
def test_bad_input_is_named(tier: str, given: dict[str, float], line: str) -> None:
    with pytest.raises(InputError, match=line):
        recipe_prices([recipe(hardware="H200")], TABLE, tier=tier, on=DAY, given=given)
