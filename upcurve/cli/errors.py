"""Bad input of every kind -> the one line that names the field and the mend."""

from __future__ import annotations

import click

from upcurve.errors import InputError


def one_line(error: Exception) -> str | None:
    """Return the line to print for bad input, or None where `error` is a defect of ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, click.ClickException):
        return _click_line(error)
    # By name, because importing the engine's errors would import the engine's room.
    if type(error).__name__ == "EngineInputError":
        return str(error)
    return None


def _click_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        return f"{message.rstrip('.')}; see '{context.command_path} --help'"
    return message
