"""The throughput-interactivity chart in a terminal."""

from __future__ import annotations

import numpy as np
import plotext

from upcurve.frontier.comparison import Comparison

COLOURS = ["blue+", "orange+", "green+", "magenta+", "cyan+", "red+"]
MARKERS = ["●", "■", "▲", "◆", "○", "□"]
SAMPLES_PER_CURVE = 200


def draw(
    comparison: Comparison,
    *,
    title: str,
    width: int,
    height: int,
    colour: bool,
    device: str = "GPU",
) -> str:
    """Return the chart as text, `width` x `height` characters.

    Curves are dotted and frontier points carry one marker per series, so that the chart reads
    without colour too.
    """
    figure = plotext.figure
    figure.clear()
    plotext.terminal.limit(False, False)
    figure.plot_size(width, height)
    figure.theme("simple")
    for index, series in enumerate(comparison.series):
        knots = [point.interactivity for point in series.frontier]
        values = [point.tput_per_gpu for point in series.frontier]
        shade = COLOURS[index % len(COLOURS)]
        marker = MARKERS[index % len(MARKERS)]
        if len(knots) > 1:
            xs = np.linspace(knots[0], knots[-1], SAMPLES_PER_CURVE)
            heights = [float(y) for y in series.curve.sample(xs)]
            figure.draw(figure.signal(xs.tolist(), heights, marker=plotext.marker("·", shade)))
        dots = figure.signal(knots, values, marker=plotext.marker(marker, shade))
        figure.draw(dots.label(series.name))
    # Frontiers fall to the right, so the corner at the upper right is free.
    figure.legend(x=width - 10, ha="right")
    figure.title(title)
    figure.label("interactivity, tokens/s per user", "x")
    figure.label(f"tokens/s per {device}", "y")
    text: str = figure.build().string(colorless=not colour)
    return text
