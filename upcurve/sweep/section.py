"""What the parts of a recipe have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from upcurve.errors import InputError


def _check_name(text: str) -> str:
    if not text.isprintable():
        raise InputError("", f"{text!r} is more than a line of text", "write a plain name")
    return text


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[Text, AfterValidator(_check_name)]
"""What a record is called by: an export of it can be imported again."""
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Section(BaseModel):
    """A part of a recipe: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
