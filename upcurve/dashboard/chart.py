"""The throughput-interactivity chart as a Vega-Lite specification: data in, no drawing code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from upcurve.frontier.comparison import Comparison
from upcurve.frontier.point import Point

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe and Ito's colours, told apart under every common colour-vision deficiency."""
SAMPLES_PER_CURVE = 200

INTERACTIVITY = "Interactivity (tokens/s per user)"
THROUGHPUT = "Throughput per GPU (input + output tokens/s)"


def frontier_chart(
    comparison: Comparison, points: Mapping[str, Sequence[Point]], *, device: str = "GPU"
) -> dict[str, Any]:
    """Return the chart of a comparison: curves, measured points with their repeats, target lines.

    Args:
        comparison: what `frontier.comparison.compare` returned.
        points: every measured point by series, repeats included.
        device: what throughput is divided by, for the axis title ("GPU", "CPU").

    Returns:
        A Vega-Lite 6 specification with its data inline.
    """
    names = [series.name for series in comparison.series]
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": names, "range": [PALETTE[i % len(PALETTE)] for i in range(len(names))]},
        "legend": {"title": None, "orient": "top"},
    }
    x = _axis("interactivity", INTERACTIVITY)
    y = _axis("tput_per_gpu", THROUGHPUT.replace("GPU", device))
    measured = [row for name in names for row in _measured(name, points[name])]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{"target": target} for target in comparison.targets]},
            "mark": {"type": "rule", "strokeDash": [2, 4], "color": "#999999"},
            "encoding": {"x": {"field": "target", "type": "quantitative"}},
        },
        {
            "data": {"values": [row for series in comparison.series for row in _curve(series)]},
            "mark": {"type": "line", "strokeWidth": 2.5},
            "encoding": {"x": x, "y": y, "color": colour},
        },
        {
            "data": {"values": measured},
            "mark": {"type": "point", "filled": True, "size": 45, "opacity": 0.75},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "tooltip": [
                    {"field": "series", "title": "series"},
                    {"field": "interactivity", "title": "tokens/s per user", "format": ".2f"},
                    {"field": "tput_per_gpu", "title": f"tokens/s per {device}", "format": ",.1f"},
                    {"field": "concurrency", "title": "concurrency"},
                    {"field": "layout", "title": "layout"},
                    {"field": "repeat", "title": "repeat"},
                ],
            },
        },
    ]
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": 380,
        "background": None,
        "autosize": {"type": "fit", "contains": "padding"},
        "layer": layers,
        "config": {"view": {"stroke": None}, "axis": {"gridOpacity": 0.35}},
    }


def _axis(field: str, title: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": True},
        "axis": {"format": ",~f"},
    }


def _measured(name: str, points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {
            "series": name,
            "interactivity": point.interactivity,
            "tput_per_gpu": point.tput_per_gpu,
            "concurrency": point.concurrency,
            "layout": point.place.layout,
            "repeat": point.repeat + 1,
        }
        for point in points
    ]


def _curve(series: Any) -> list[dict[str, Any]]:
    knots = [point.interactivity for point in series.frontier]
    if len(knots) < 2:
        return []
    xs = np.unique(np.concatenate([np.linspace(knots[0], knots[-1], SAMPLES_PER_CURVE), knots]))
    return [
        {"series": series.name, "interactivity": float(x), "tput_per_gpu": float(y)}
        for x, y in zip(xs, series.curve.sample(xs), strict=True)
    ]
