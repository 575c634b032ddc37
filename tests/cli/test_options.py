"""Options that several commands share."""

from __future__ import annotations

import click
import pytest

from upcurve.cli.options import FiniteRange
from upcurve.cli.sweep import command as sweep


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0", "x"])
def test_a_number_is_finite_and_in_its_range(text: str) -> None:
    kind = FiniteRange(min=0, min_open=True)
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)
    assert kind.convert("0.5", None, None) == 0.5


def test_no_float_option_of_a_measuring_command_takes_nan() -> None:
    from upcurve.cli import ablate, bisect, compare, history

    for command in (sweep, ablate.command, bisect.command, compare.command, history.command):
        for option in command.params:
            if isinstance(option.type, click.FloatRange):
                with pytest.raises(click.BadParameter, match="no finite number"):
                    option.type.convert("nan", None, None)
