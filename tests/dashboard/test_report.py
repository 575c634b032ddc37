import json
import re
from html.parser import HTMLParser

import pytest
import vl_convert

from upcurve.dashboard.report import render_report, write_report
from upcurve.dashboard.section import comparison_section, headline
from upcurve.frontier.comparison import compare
from upcurve.frontier.point import Point

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def points(name_and_scale):
    return {
        name: [
            Point(x * scale, y * scale, tp=1, gpus=1, concurrency=c, repeat=repeat)
            for repeat in range(3)
            for x, y, c in ((10 + repeat / 10, 300, 8), (20, 200 - repeat, 4), (30, 90, 1))
        ]
        for name, scale in name_and_scale.items()
    }


@pytest.fixture
def comparison():
    measured = points({"before": 1.0, EVIL: 1.4})
    return measured, compare(
        measured, baseline="before", targets=[16, 20, 40], usd_per_gpu_hour={"before": 2.0}
    )


@pytest.fixture
def page(comparison):
    measured, compared = comparison
    section = comparison_section(
        compared, measured, title=EVIL, headline="ahead", notes=[EVIL], device="CPU"
    )
    return render_report(
        title=EVIL, subtitle="s", sections=[section, section], provenance=[("host", EVIL)]
    )


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_names_from_data_cannot_break_out_of_the_page(page):
    parser = Elements()
    parser.feed(page)
    tags = [tag for tag, _ in parser.tags]
    assert "img" not in tags
    assert tags.count("script") == 2
    assert not any(name.startswith("on") for _, attributes in parser.tags for name in attributes)


def test_the_page_loads_nothing(page):
    parser = Elements()
    parser.feed(page)
    for tag, attributes in parser.tags:
        assert tag not in ("link", "iframe")
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith("#"), tag
    assert "default-src 'none'" in page


def test_the_table_has_the_numbers_of_the_comparison(page, comparison):
    _, compared = comparison
    own = compared.series[1].at
    assert own[0].ratio is not None
    assert f"ratio {own[0].ratio:.2f}x" in page
    assert "unreachable" in page
    cost = compared.series[0].at[0].usd_per_million_tokens
    assert f"$/M tokens ${cost:#.3g}" in page


def test_every_chart_compiles_and_shows_every_measured_point(comparison):
    measured, compared = comparison
    section = comparison_section(
        compared, measured, title="t", headline="h", notes=[], device="GPU"
    )
    shown = section.chart["layer"][2]["data"]["values"]
    assert len(shown) == sum(len(each) for each in measured.values())
    svg = vl_convert.vegalite_to_svg(section.chart | {"width": 600}, vl_version="6.4")
    assert svg.count('aria-roledescription="point"') == len(shown)
    assert "Throughput per GPU" in svg


def test_curves_pass_through_the_frontier_points(comparison):
    measured, compared = comparison
    chart = comparison_section(compared, measured, title="t", headline="h", notes=[]).chart
    curve = {
        (row["series"], row["interactivity"]): row["tput_per_gpu"]
        for row in chart["layer"][1]["data"]["values"]
    }
    for series in compared.series:
        for point in series.frontier:
            assert curve[series.name, point.interactivity] == pytest.approx(point.tput_per_gpu)


def test_the_charts_data_is_json_without_markup(page):
    data = re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in data
    first, second = json.loads(data)
    assert first == second
    assert {row["series"] for row in first["layer"][1]["data"]["values"]} == {"before", EVIL}


def test_the_headline_gives_the_range_and_what_the_baseline_does_not_reach(comparison):
    _, compared = comparison
    text = headline(compared, EVIL)
    ratios = [each.ratio for each in compared.series[1].at[:2]]
    assert f"gives {min(ratios):.2f}x to {max(ratios):.2f}x the throughput of before" in text
    assert text.endswith("and it reaches 40, where before does not get.")


def test_a_report_is_replaced_whole(tmp_path):
    path = tmp_path / "reports" / "demo.html"
    write_report(path, "old")
    write_report(path, "new")
    assert path.read_text() == "new"
    assert [each.name for each in path.parent.iterdir()] == ["demo.html"]
