"""What a GPU-hour of recipes costs, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from upcurve.errors import InputError
from upcurve.frontier.cost import Price, PriceTable
from upcurve.sweep.recipe import Recipe


def recipe_prices(
    recipes: Iterable[Recipe],
    table: PriceTable,
    *,
    tier: str,
    on: date,
    given: Mapping[str, float],
) -> tuple[dict[str, Price], list[str]]:
    """Return the price of each hardware that recipes name, and notes on what has none.

    Args:
        recipes: what is to be measured.
        table: dated prices.
        tier: kind of provider, as in the table.
        on: date of the prices.
        given: hardware -> USD per GPU-hour, instead of the table's.

    Raises:
        InputError: a given price for hardware that no recipe names, a tier that the table does not
            have for the hardware, or `on` before its first price.
    """
    used = sorted({recipe.hardware for recipe in recipes})
    for unknown in given:
        if unknown not in used:
            raise InputError(
                "price", f"the recipe does not run on {unknown!r}", f"it runs on {', '.join(used)}"
            )
    prices, notes = {}, []
    for hardware in used:
        if hardware in given:
            prices[hardware] = Price(hardware, given[hardware])
        elif hardware in table.hardware:
            prices[hardware] = table.lookup(hardware, tier, on)
        else:
            notes.append(f"No cost, because {hardware} has no price; give --price {hardware}=USD.")
    return prices, notes
