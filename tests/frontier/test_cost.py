from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.frontier.cost import PriceTable, input_output_cost, usd_per_million_tokens

LINES = """hardware,tier,valid_from,usd_per_gpu_hour
MI355X,hyperscaler,2026-07-01,1.5
MI355X,hyperscaler,2025-08-01,1.48
MI355X,rental,2025-08-01,2.1
H200,hyperscaler,2025-08-01,1.41
""".splitlines()
TABLE = PriceTable.from_csv(LINES)


@given(st.floats(0.01, 100), st.floats(0.1, 1e6))
def test_price_per_hour_is_what_an_hours_tokens_cost(price, tput):
    tokens_of_an_hour = tput * 3600
    assert usd_per_million_tokens(price, tput) * tokens_of_an_hour / 1e6 == pytest.approx(price)


@given(st.floats(0.01, 10), st.integers(1, 10**5), st.integers(1, 10**5), st.floats(0.1, 100))
def test_input_and_output_cost_together_what_a_request_costs(cost, isl, osl, weight):
    of_input, of_output = input_output_cost(cost, isl, osl, weight)
    assert of_output / of_input == pytest.approx(weight)
    assert of_input * isl + of_output * osl == pytest.approx(cost * (isl + osl))


@pytest.mark.parametrize(
    ("on", "usd"),
    [("2025-08-01", 1.48), ("2026-06-30", 1.48), ("2026-07-01", 1.5), ("2030-01-01", 1.5)],
)
def test_the_latest_price_that_holds_on_the_date(on, usd):
    assert TABLE.lookup("MI355X", "hyperscaler", date.fromisoformat(on)).usd_per_gpu_hour == usd


def test_a_price_says_what_it_assumes():
    price = TABLE.lookup("MI355X", "rental", date(2026, 1, 1))
    assert price.describe() == "MI355X $2.1 per GPU-hour (rental, valid from 2025-08-01)"


@pytest.mark.parametrize(
    ("hardware", "tier", "on", "message"),
    [
        ("TPU", "rental", "2026-01-01", "hardware: .*'TPU'; known are H200, MI355X"),
        ("MI355X", "spot", "2026-01-01", "tier: .*'spot'.*; known are hyperscaler, rental"),
        ("H200", "hyperscaler", "2025-07-31", "on: .*2025-07-31; the earliest is of 2025-08-01"),
    ],
)
def test_what_has_no_price_is_answered_with_what_has(hardware, tier, on, message):
    with pytest.raises(InputError, match=message):
        TABLE.lookup(hardware, tier, date.fromisoformat(on))


@pytest.mark.parametrize(
    "lines",
    [
        ["hardware,tier,usd_per_gpu_hour", "H200,rental,1"],
        ["hardware,tier,valid_from,usd_per_gpu_hour", "H200,rental,2025-13-01,1"],
        ["hardware,tier,valid_from,usd_per_gpu_hour", "H200,rental,2025-01-01,cheap"],
        ["hardware,tier,valid_from,usd_per_gpu_hour", "H200,rental"],
        ["hardware,tier,valid_from,usd_per_gpu_hour", "H200,rental,2025-01-01,0"],
        ["hardware,tier,valid_from,usd_per_gpu_hour", "H200,rental,2025-01-01,nan"],
    ],
)
def test_a_bad_price_row_is_named_by_its_line(lines):
    with pytest.raises(InputError, match="line 2"):
        PriceTable.from_csv(lines)
