"""A comparison laid out for readers: a grid of short texts, and tidy rows for machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.frontier.comparison import Comparison, SeriesComparison, TargetReading
from upcurve.frontier.cost import Price
from upcurve.frontier.flag_notes import Flagged, flag_notes
from upcurve.frontier.text import cost_text, ratio_text, throughput_text

END_MARK = "*"
STATUS_WORDS = {"unreachable": "unreachable", "below_range": "below range"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the grid: a target, what the line shows, and one text for each series."""

    target: str
    label: str
    texts: tuple[str, ...]


def header(comparison: Comparison) -> list[str]:
    """Return the heads of the series' columns."""
    names = [series.name for series in comparison.series]
    # A series that is called baseline says it already.
    return [
        f"{name} (baseline)" if name == comparison.baseline != "baseline" else name
        for name in names
    ]


def grid(comparison: Comparison) -> list[list[Line]]:
    """Return one block of lines for each target, in the order of the targets.

    Throughput comes first in every block; ratios, intervals, spreads and costs follow where at
    least one series has them.
    """
    return [_block(comparison, index) for index in range(len(comparison.targets))]


def _block(comparison: Comparison, index: int) -> list[Line]:
    target = f"{comparison.targets[index]:g}"
    readings = [series.at[index] for series in comparison.series]
    is_baseline = [series.name == comparison.baseline for series in comparison.series]

    def texts(show: Callable[[TargetReading], str], *, ratios: bool = False) -> tuple[str, ...]:
        return tuple(
            "" if ratios and own else show(reading)
            for reading, own in zip(readings, is_baseline, strict=True)
        )

    lines = [
        Line(target, "tok/s/GPU", texts(_throughput)),
        Line(target, "95 % interval", texts(_interval)),
        Line(target, "ratio", texts(_ratio, ratios=True)),
        Line(target, "  95 % of ratio", texts(_ratio_interval, ratios=True)),
        Line(target, "  by round", texts(_ratio_by_round, ratios=True)),
        Line(target, "  by rule", texts(_ratio_by_rule, ratios=True)),
        Line(target, "$/M tokens", texts(_cost)),
    ]
    return [lines[0], *(line for line in lines[1:] if any(line.texts))]


def _throughput(reading: TargetReading) -> str:
    if reading.tput_per_gpu is None:
        return STATUS_WORDS[reading.status]
    mark = END_MARK if reading.segment == "end" else ""
    words = "measured " if reading.status == "measured" else ""
    return f"{words}{throughput_text(reading.tput_per_gpu)}{mark}"


def _interval(reading: TargetReading) -> str:
    return " to ".join(map(throughput_text, reading.interval)) if reading.interval else ""


def _ratio(reading: TargetReading) -> str:
    return "" if reading.ratio is None else ratio_text(reading.ratio)


def _ratio_interval(reading: TargetReading) -> str:
    return " to ".join(map(ratio_text, reading.ratio_interval)) if reading.ratio_interval else ""


def _ratio_by_round(reading: TargetReading) -> str:
    spread = reading.round_ratios
    return f"{ratio_text(spread.minimum)} to {ratio_text(spread.maximum)}" if spread else ""


def _ratio_by_rule(reading: TargetReading) -> str:
    return " to ".join(map(ratio_text, reading.rule_ratios)) if reading.rule_ratios else ""


def _cost(reading: TargetReading) -> str:
    cost = reading.usd_per_million_tokens
    return "" if cost is None else cost_text(cost)


def legend(comparison: Comparison, details: Mapping[str, str]) -> list[str]:
    """Return a line for each series, and for each mark and word that the grid shows.

    Args:
        comparison: what is shown.
        details: what was measured, in words, by series name; may be empty.
    """
    readings = [reading for series in comparison.series for reading in series.at]
    statuses = {reading.status for reading in readings}
    lines = [
        f"{series.name}: {details[series.name] + '; ' if series.name in details else ''}"
        f"{len(series.frontier)} frontier points, "
        f"{series.curve.x[0]:.4g} to {series.curve.x[-1]:.4g} tok/s/user"
        + (f", median of {series.rounds} rounds" if series.rounds else "")
        for series in comparison.series
    ]
    lines.append(f"Interpolated on each frontier by the rule {comparison.rule!r}.")
    if any(reading.segment == "end" for reading in readings):
        lines.append(
            f"{END_MARK} in the first or last interval of its frontier, where the rule matters."
        )
    if any(reading.rule_ratios for reading in readings):
        lines.append("by rule: lowest to highest ratio over all interpolation rules.")
    if "unreachable" in statuses:
        lines.append("unreachable: no frontier point at or above that interactivity; no ratio.")
    if any(reading.ratio == math.inf for reading in readings):
        lines.append("inf: the baseline does not reach that interactivity.")
    if "below_range" in statuses:
        lines.append("below range: every frontier point is faster per user; not extrapolated.")
    if any(reading.interval for reading in readings):
        lines.append("95 % interval, 95 % of ratio: bootstrap over repeats and their requests.")
    if any(reading.round_ratios for reading in readings):
        lines.append("by round: lowest to highest ratio of a round over the baseline's same round.")
    return [
        *lines,
        *map(_area_line, _with_area(comparison)),
        *_noise_lines(comparison),
        *flag_notes(flagged(comparison)),
    ]


def _with_area(comparison: Comparison) -> list[SeriesComparison]:
    return [series for series in comparison.series if series.area]


def _area_line(series: SeriesComparison) -> str:
    area = series.area
    assert area, "the caller chose"
    spread = f" ({' to '.join(map(ratio_text, area.interval))})" if area.interval else ""
    return (
        f"Area ratio of {series.name}: {ratio_text(area.ratio)}{spread}, over the shared band of "
        f"{area.band[0]:.4g} to {area.band[1]:.4g} tok/s/user."
    )


def _noise_lines(comparison: Comparison) -> list[str]:
    return [
        f"Noise floor of {series.name}: {series.noise.describe()}."
        for series in comparison.series
        if series.noise
    ]


def flagged(comparison: Comparison) -> Iterator[Flagged]:
    """Yield every series and every figure of a comparison with its flags, if any."""
    for series in comparison.series:
        yield series.name, None, series.flags
        for reading in series.at:
            if reading.tput_per_gpu is not None:
                yield series.name, reading.interactivity, reading.flags


def markdown(comparison: Comparison, notes: Sequence[str]) -> str:
    """Return the grid as a Markdown table over a list of notes, ending in a newline."""
    head = ["tok/s/user", "", *header(comparison)]
    rows = [head, ["---:", "---", *["---:"] * len(comparison.series)]]
    for block in grid(comparison):
        for position, line in enumerate(block):
            rows.append([line.target if position == 0 else "", line.label.strip(), *line.texts])
    # A bare * or | in a name or mark would be read as Markdown.
    table = [
        "| " + " | ".join(cell.replace("|", r"\|").replace("*", r"\*") for cell in row) + " |"
        for row in rows
    ]
    lines = ["- " + line.replace("*", r"\*") for line in notes]
    return "\n".join([*table, "", *lines]) + "\n"


def tidy_rows(comparison: Comparison, prices: Mapping[str, Price | None]) -> list[dict[str, Any]]:
    """Return one flat row for each series and target, the same keys in all; None where empty."""
    rows = []
    for series in comparison.series:
        price, area = prices.get(series.name), series.area
        for reading in series.at:
            low, high = reading.interval or (None, None)
            ratios = reading.ratio_interval or (None, None)
            spread, rules = reading.round_ratios, reading.rule_ratios or (None, None)
            rows.append(
                {
                    "series": series.name,
                    "interactivity": reading.interactivity,
                    "status": reading.status,
                    "segment": reading.segment,
                    "tput_per_gpu": reading.tput_per_gpu,
                    "interval_low": low,
                    "interval_high": high,
                    "baseline": comparison.baseline,
                    "ratio": reading.ratio,
                    "ratio_low": ratios[0],
                    "ratio_high": ratios[1],
                    "rounds": series.rounds,
                    "round_ratio_min": spread and spread.minimum,
                    "round_ratio_median": spread and spread.median,
                    "round_ratio_max": spread and spread.maximum,
                    "rule": comparison.rule,
                    "rule_ratio_min": rules[0],
                    "rule_ratio_max": rules[1],
                    "usd_per_million_tokens": reading.usd_per_million_tokens,
                    "usd_per_gpu_hour": price and price.usd_per_gpu_hour,
                    "price_tier": price and (price.tier or "given"),
                    "price_valid_from": price and price.valid_from,
                    "area_ratio": area and area.ratio,
                    "area_ratio_low": area and area.interval and area.interval[0],
                    "area_ratio_high": area and area.interval and area.interval[1],
                    "area_band_low": area and area.band[0],
                    "area_band_high": area and area.band[1],
                    "noise_floor": series.noise and series.noise.variation,
                    "flags": "; ".join(
                        f"{flag.code}: {flag.text}" for flag in (*series.flags, *reading.flags)
                    ),
                }
            )
    return rows
