"""Bad input of every kind -> the one line that names the field and the mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from upcurve.errors import InputError

EXTRAS = {
    "engine": (
        "fastapi",
        "safetensors",
        "torch",
        "uvicorn",
    ),
    "report": ("jinja2", "markupsafe", "plotext", "vl_convert"),
    "postgres": ("psycopg",),
}
"""Optional parts of the installation, and the modules by which they are missed."""


def one_line(error: Exception) -> str | None:
    """Return the line to print for bad input, or None where `error` is a defect of ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, click.ClickException):
        return _click_line(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_extra(error.name or "")
    # By name, because importing the engine's errors would import the engine's room.
    if type(error).__name__ == "EngineInputError":
        return str(error)
    return None


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Name the part of the installation that is missing where an import within fails.

    Raises:
        InputError: in place of ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "upcurve").partition(".")[0] == "upcurve":
            raise  # a defect of ours
        problem = f"this needs {error.name}, which is not installed"
        mend = f"pip install 'upcurve[{extra}]'"
        raise InputError("installation", problem, mend) from error


def _missing_extra(module: str) -> str | None:
    for extra, modules in EXTRAS.items():
        if module.partition(".")[0] in modules:
            mend = f"pip install 'upcurve[{extra}]'"
            return f"installation: this needs {module}, which is not installed; {mend}"
    return None


def _click_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        return f"{message.rstrip('.')}; see '{context.command_path} --help'"
    return message
