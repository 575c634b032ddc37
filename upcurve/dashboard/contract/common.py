"""Parts that several answers share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]
"""95 % interval, low and high."""


class Answer(BaseModel):
    """An answer, or a part of one. Unknown is null; times are ISO 8601 in UTC."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """What every refusal carries, with status 400, 401, 403, 404, 409, 413 or 422."""

    error: str
    """One line: field, problem, mend."""
    field: str
    problem: str
    mend: str


class Flag(Answer):
    """One thing to know before believing a figure."""

    code: str
    text: str


class Axis(Answer):
    """One axis of a chart."""

    name: str
    label: str
    unit: str
    higher_is_better: bool


class Group(Answer):
    """Series of one model and workload: what may stand in one chart."""

    id: str
    """Short, stable, fit for a URL and a file name."""
    model: str
    isl: int
    osl: int
    hardware: list[str]
    precisions: list[str]
    series: int
    points: int
    last_measured_on: str


class Preset(Answer):
    """A named state of the page."""

    name: str
    title: str
    query: str
    """The query string that opens it."""


class Link(Answer):
    """A change (pull request) that came with a build."""

    text: str
    url: str | None
    """Where it is an http or https link; else the text is all there is."""


Status = Literal["measured", "interpolated", "unreachable", "below_range"]
Segment = Literal["interior", "end"]
