"""The waterfall of an attribution: a Vega-Lite specification, and its SVG or PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from upcurve.dashboard.chart import SCHEMA
from upcurve.dashboard.report import VEGALITE_VERSION
from upcurve.errors import InputError
from upcurve.files import write_whole
from upcurve.frontier.attribution import Attribution
from upcurve.frontier.waterfall import headline, steps

COLOURS = {"gain": "#0072B2", "loss": "#D55E00", "level": "#555555"}
"""Okabe and Ito's blue and vermilion."""


def check_chart_file(path: Path) -> None:
    """Raise `InputError` where a chart cannot be written to `path`: before anything is measured."""
    if path.suffix not in (".svg", ".png"):
        raise InputError("--chart", f"{path} is no SVG or PNG file", "end its name in .svg or .png")
    if not path.parent.is_dir():
        raise InputError("--chart", f"there is no folder {path.parent}", "make it first")


def waterfall_chart(attributions: Sequence[Attribution], *, device: str = "GPU") -> dict[str, Any]:
    """Return one waterfall for each target that has shares, below each other.

    Args:
        attributions: what to draw.
        device: what throughput is divided by ("GPU", "CPU").

    Returns:
        A Vega-Lite 6 specification with its data inline.

    Raises:
        InputError: no target has shares.
    """
    drawn = [each for each in attributions if each.shares]
    if not drawn:
        raise InputError("--chart", "no target has shares", "see the remarks for targets to try")
    return {
        "$schema": SCHEMA,
        "background": "white",
        "vconcat": [_waterfall(each, device) for each in drawn],
        "config": {"view": {"stroke": None}, "axis": {"gridOpacity": 0.35, "labelLimit": 320}},
    }


def write_chart(path: Path, chart: dict[str, Any]) -> None:
    """Write a chart as SVG or PNG, by the file's ending; the file is there whole or not at all."""
    if path.suffix == ".svg":
        data = vl_convert.vegalite_to_svg(chart, vl_version=VEGALITE_VERSION).encode()
    else:
        data = vl_convert.vegalite_to_png(chart, vl_version=VEGALITE_VERSION, scale=2)
    write_whole(path, lambda file: file.write(data))


def _waterfall(attribution: Attribution, device: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for step in steps(attribution):
        gain = "gain" if step.end > step.start else "loss"
        text = f"{step.end:,.4g}" if step.level else f"{step.end / step.start:.3f}x"
        rows.append(
            {
                "name": step.name,
                "start": step.start,
                "end": step.end,
                "low": step.low,
                "high": step.high,
                "kind": "level" if step.level else gain,
                "text": text,
                "right": max(step.start, step.end, step.high or 0),
            }
        )
    y = {
        "field": "name",
        "type": "nominal",
        "sort": [row["name"] for row in rows],
        "axis": {"title": None, "ticks": False, "domain": False},
    }
    x = {
        "field": "start",
        "type": "quantitative",
        "title": f"Throughput per {device} (tokens/s, logarithmic)",
        "scale": {"type": "log", "nice": False, "zero": False, "padding": 60},
        "axis": {"format": ",~g", "tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 12},
    }
    kinds = {
        "field": "kind",
        "type": "nominal",
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
        "legend": None,
    }
    moves = {"filter": "datum.kind != 'level'"}
    levels = {"filter": "datum.kind == 'level'"}
    intervals = {"filter": "isValid(datum.low)"}
    return {
        "title": {"text": headline(attribution), "anchor": "start", "fontSize": 12},
        "width": 640,
        "height": {"step": 28},
        "data": {"values": rows},
        "encoding": {"y": y},
        "layer": [
            {
                "transform": [moves],
                "mark": {"type": "bar", "height": 16},
                "encoding": {"x": x, "x2": {"field": "end"}, "color": kinds},
            },
            {
                "transform": [levels],
                "mark": {"type": "tick", "thickness": 4, "size": 22},
                "encoding": {"x": x, "color": kinds},
            },
            {
                "transform": [intervals],
                "mark": {"type": "errorbar", "ticks": {"size": 8}, "color": "black"},
                "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 6},
                "encoding": {"x": x | {"field": "right"}, "text": {"field": "text"}},
            },
        ],
    }
