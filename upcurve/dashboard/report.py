"""A comparison as one self-contained HTML file: charts, tables, provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

VEGALITE_VERSION = "6.4"

# The charts' data is no part of this: bundling would undo its escapes.
DRAW = """
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#ececec" : "#1a1a1a";
const text = { labelColor: ink, titleColor: ink };
const axis = { ...text, domainColor: ink, tickColor: ink };
const actions = { export: true, source: false, compiled: false, editor: false };
JSON.parse(document.getElementById("charts").textContent).forEach((chart, index) => {
  chart.config.axis = { ...chart.config.axis, ...axis };
  chart.config.legend = text;
  vegaEmbed(`#chart-${index + 1}`, chart, { renderer: "svg", actions });
});
"""
"""Draws each chart in place of its drawing, in the reader's colours."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell: its text, and smaller lines under it."""

    text: str
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is shown: column names and rows of cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Section:
    """One comparison on the page."""

    title: str
    headline: str
    chart: dict[str, Any]
    chart_label: str
    caption: str
    table: Table
    notes: Sequence[str] = field(default_factory=list)

    @property
    def svg(self) -> Markup:
        """The chart drawn once, for readers without scripts and for print."""
        fixed_size = self.chart | {"width": 860}
        return Markup(vl_convert.vegalite_to_svg(fixed_size, vl_version=VEGALITE_VERSION))  # noqa: S704


def render_report(
    *,
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    provenance: Sequence[tuple[str, str]],
) -> str:
    """Return the page. Every text is escaped; the charts become interactive where scripts run."""
    environment = Environment(
        loader=PackageLoader("upcurve.dashboard", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        provenance=provenance,
        charts=_json_in_html([section.chart for section in sections]),
        library=Markup(vl_convert.javascript_bundle(DRAW, vl_version=VEGALITE_VERSION)),  # noqa: S704
    )


def write_report(path: Path, page: str) -> None:
    """Write the page atomically: a reader sees the old file or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _json_in_html(value: Any) -> Markup:
    """Return JSON that cannot close the script element which holds it."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))  # noqa: S704
