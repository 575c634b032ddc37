from upcurve.dashboard.terminal import draw
from upcurve.frontier.comparison import compare
from upcurve.frontier.point import Point


def comparison():
    series = {
        name: [
            Point(x, y * scale, 1, 1, c) for x, y, c in ((10, 300, 8), (20, 200, 4), (30, 90, 1))
        ]
        for name, scale in (("before", 1), ("after", 2))
    }
    return compare(series, baseline="before", targets=[15], usd_per_gpu_hour={})


def test_the_chart_fits_and_marks_every_frontier_point():
    chart = draw(comparison(), title="two series", width=90, height=20, colour=False)
    lines = chart.rstrip("\n").split("\n")
    assert "\033" not in chart
    assert len(lines) == 20
    assert max(map(len, lines)) <= 90
    # Three points each, and one sample in the legend.
    assert chart.count("●") == 4
    assert chart.count("■") == 4
    for text in ("two series", "before", "after", "tokens/s per GPU", "tokens/s per user"):
        assert text in chart


def test_colour_is_optional():
    assert "\033" in draw(comparison(), title="t", width=80, height=20, colour=True)
