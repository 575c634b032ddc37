"""What the API can be asked: one pydantic model for the parameters of each endpoint."""

from __future__ import annotations

import math
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from upcurve.records.compared import Pricing

XName = Literal["interactivity", "e2e", "ttft"]
YName = Literal["total", "input", "output", "cost", "per_mw", "joules"]
Rule = Literal["published", "linear", "secant_ends", "steffen", "pchip"]
MetricName = Literal[
    "tput", "interactivity", "ttft_ms", "tpot_ms", "usd_per_million", "joules_per_token"
]
MOST_TARGETS = 200


def _numbers(value: Any) -> Any:
    """Read `20,30` or a list of such texts."""
    if value is None or value == []:
        return None
    texts = [value] if isinstance(value, str) else value
    found = []
    for text in (part for each in texts for part in str(each).split(",")):
        try:
            number = float(text)
        except ValueError:
            number = -1
        if not 0 < number < math.inf:
            raise ValueError(f"{text.strip()!r} is not a positive number|give e.g. 20,30,40")
        found.append(number)
    if len(found) > MOST_TARGETS:
        raise ValueError(f"{len(found)} numbers are too many|give at most {MOST_TARGETS}")
    return found


def _assignments(value: Any) -> Any:
    """Read `MI355X=1.48`, repeated."""
    found = {}
    for text in [value] if isinstance(value, str) else value or []:
        name, _, amount = str(text).rpartition("=")
        try:
            number = float(amount)
        except ValueError:
            number = -1
        if not name or not 0 < number < math.inf:
            raise ValueError(f"{text!r} is no HARDWARE=NUMBER|give e.g. MI355X=1.48")
        found[name] = number
    return found


def _renamings(value: Any) -> Any:
    """Read `may=H200`, repeated."""
    found = {}
    for text in [value] if isinstance(value, str) else value or []:
        series, _, hardware = str(text).rpartition("=")
        if not series or not hardware:
            raise ValueError(f"{text!r} names no hardware for a series|give e.g. may=H200")
        found[series] = hardware
    return found


Texts = Annotated[list[str], Field(max_length=200)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Question(BaseModel):
    """Parameters of one endpoint; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")


class Priced(Question):
    """What tokens are priced by: the options of `upcurve compare`."""

    price: Annotated[list[str], BeforeValidator(lambda v: _checked(_assignments, v))] = []
    tier: str = "hyperscaler"
    on: date | None = None
    as_hardware: Annotated[list[str], BeforeValidator(lambda v: _checked(_renamings, v))] = []
    kw: Annotated[list[str], BeforeValidator(lambda v: _checked(_assignments, v))] = []
    usd_per_kwh: Positive | None = None
    pue: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None

    def pricing(self) -> Pricing:
        """Return it as the comparison takes it."""
        return Pricing(
            given=_assignments(self.price),
            tier=self.tier,
            on=self.on,
            as_hardware=_renamings(self.as_hardware),
            kw=_assignments(self.kw),
            usd_per_kwh=self.usd_per_kwh,
            pue=self.pue,
        )


def _checked(read: Any, value: Any) -> list[str]:
    """Keep the texts, once they are known to be readable."""
    read(value)
    return [value] if isinstance(value, str) else list(value or [])


Targets = Annotated[list[str], BeforeValidator(lambda v: _checked(_numbers, v))]


def numbers(texts: list[str]) -> list[float] | None:
    """Return the numbers of a comma-separated parameter; None where it was not given."""
    found: list[float] | None = _numbers(texts)
    return found


class OverviewQuestion(Priced):
    """Parameters of `overview`."""

    tiers: Targets = ["20,40,60"]
    q: str = ""
    hardware: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0)] = 0


class SeriesQuestion(Question):
    """Parameters of `series`."""

    group: str | None = None
    model: str | None = None
    hardware: str | None = None
    precision: str | None = None
    engine: str | None = None
    q: str = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    offset: Annotated[int, Field(ge=0)] = 0


class FrontierQuestion(Priced):
    """Parameters of `frontier`."""

    series: Texts = []
    group: str | None = None
    isl: Tokens | None = None
    osl: Tokens | None = None
    x: XName = "interactivity"
    y: YName = "total"
    rule: Rule = "published"
    dominated: bool = False


class LimitQuestion(Priced):
    """Parameters of `limit`."""

    group: str | None = None
    model: str | None = None
    isl: Tokens | None = None
    osl: Tokens | None = None
    hardware: str | None = None
    precision: Literal["fp8", "bf16"] | None = None
    x: XName = "interactivity"
    y: YName = "total"


class CompareQuestion(Priced):
    """Parameters of `compare`."""

    series: Texts = []
    group: str | None = None
    baseline: str | None = None
    at: Targets = []
    every: Positive | None = None
    isl: Tokens | None = None
    osl: Tokens | None = None
    rule: Rule = "published"
    output_weight: Positive | None = None
    format: Literal["json", "csv", "markdown", "latex"] = "json"


class HistoryQuestion(Question):
    """Parameters of `history`."""

    pattern: Texts = []
    group: str | None = None
    at: Targets = []
    concurrency: Tokens | None = None
    metric: MetricName = "tput"
    by: Literal["build", "date"] = "build"
    join: bool = False
    isl: Tokens | None = None
    osl: Tokens | None = None
    price: Positive | None = None
    tier: str = "hyperscaler"
    min_change: Annotated[float, Field(ge=0, le=1)] = 0.01


class AttributionQuestion(Priced):
    """Parameters of `attribution`."""

    group: str | None = None
    at: Targets = []
    rule: Rule = "published"
    precision: Positive = 0.02


class AccuracyQuestion(Question):
    """Parameters of `accuracy`."""

    group: str | None = None
    series: Texts = []


class RunsQuestion(Question):
    """Parameters of `runs`."""

    series: Texts = []
    group: str | None = None
    status: Literal["running", "complete", "interrupted", "failed"] | None = None
    q: str = ""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    offset: Annotated[int, Field(ge=0)] = 0


class RunQuestion(Question):
    """Parameters of `runs/{id}`."""

    log_bytes: Annotated[int, Field(ge=0, le=4 * 2**20)] = 2**16


class TimelineQuestion(Question):
    """Parameters of `points/{id}/timeline`."""

    limit: Annotated[int, Field(ge=1, le=5000)] = 500
    offset: Annotated[int, Field(ge=0)] = 0


class HardwareQuestion(Question):
    """Parameters of `hardware`."""

    on: date | None = None


class NoQuestion(Question):
    """No parameters."""
