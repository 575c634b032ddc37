"""Options that several commands share."""

from __future__ import annotations

import click
import pytest

from upcurve.cli import COMMANDS, main
from upcurve.cli.options import FiniteRange, Name


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0", "x"])
def test_a_number_is_finite_and_in_its_range(text: str) -> None:
    kind = FiniteRange(min=0, min_open=True)
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)
    assert kind.convert("0.5", None, None) == 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_no_float_option_takes_nan(name: str) -> None:
    with click.Context(main) as context:
        command = main.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.FloatRange):
                with pytest.raises(click.BadParameter, match="no finite number"):
                    option.type.convert("nan", None, None)


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\x1b[31m", "a\udcff", "x" * 2001])
def test_a_name_is_one_line_of_text(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no name"):
        Name().convert(text, None, None)


@pytest.mark.parametrize("text", ["../x", "<b>", "=1+1", "größer", "a b"])
def test_a_name_is_kept_as_it_is(text: str) -> None:
    assert Name().convert(text, None, None) == text
