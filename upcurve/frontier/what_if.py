"""What else a comparison says of its targets: energy of a token, cost of input and of output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from upcurve.frontier.comparison import Comparison, SeriesComparison, TargetReading
from upcurve.frontier.cost import input_output_cost, joules_per_token
from upcurve.frontier.point import Place

Watts = Mapping[Place, float]
"""Mean power of one GPU, in W."""


@dataclass(frozen=True, slots=True)
class WhatIfReading:
    """One series at one target; None where power or a price is not known, or no value is there."""

    joules_per_token: float | None
    """Of the GPUs alone, for one token, input or output."""
    usd_per_million_input: float | None
    usd_per_million_output: float | None


def what_if_readings(
    comparison: Comparison,
    watts: Mapping[str, Watts],
    workloads: Mapping[str, tuple[int, int]],
    output_weight: float | None,
) -> dict[str, list[WhatIfReading]]:
    """Return what is known of each series at each target, in the order of the targets.

    Args:
        comparison: what was compared.
        watts: power of each series' operating points.
        workloads: (isl, osl) of each series.
        output_weight: how many input tokens an output token is charged as; None splits no cost.
    """
    return {
        series.name: [
            WhatIfReading(
                _joules(series, reading, watts.get(series.name, {})),
                *_split(reading, workloads[series.name], output_weight),
            )
            for reading in series.at
        ]
        for series in comparison.series
    }


def _joules(series: SeriesComparison, reading: TargetReading, watts: Watts) -> float | None:
    if reading.tput_per_gpu is None:
        return None
    return joules_per_token(series.frontier, watts, reading.interactivity, reading.tput_per_gpu)


def _split(
    reading: TargetReading, workload: tuple[int, int], output_weight: float | None
) -> tuple[float | None, float | None]:
    if output_weight is None or reading.usd_per_million_tokens is None:
        return None, None
    return input_output_cost(reading.usd_per_million_tokens, *workload, output_weight)


def what_if_lines(
    comparison: Comparison,
    readings: Mapping[str, list[WhatIfReading]],
    output_weight: float | None,
) -> list[str]:
    """Return what is known in words, a line for each target, with how it was come by."""
    lines = []
    for index, target in enumerate(comparison.targets):
        at = {name: each[index] for name, each in readings.items()}
        joules = [
            f"{name} {each.joules_per_token:.3g}"
            for name, each in at.items()
            if each.joules_per_token is not None
        ]
        split = [
            f"{name} ${each.usd_per_million_input:.3g} / ${each.usd_per_million_output:.3g}"
            for name, each in at.items()
            if each.usd_per_million_input is not None
        ]
        if joules:
            lines.append(f"J/token at {target:g} tok/s/user: {', '.join(joules)}.")
        if split:
            lines.append(f"$/M input / output at {target:g} tok/s/user: {', '.join(split)}.")
    if any(line.startswith("J/token") for line in lines):
        lines.append(
            "J/token: GPUs alone, input and output tokens alike; power on the straight line "
            "between the frontier points beside the target, over the throughput there."
        )
    if any(line.startswith("$/M input") for line in lines):
        lines.append(
            f"Input and output: an output token is charged as {output_weight:g} input tokens."
        )
    return lines
