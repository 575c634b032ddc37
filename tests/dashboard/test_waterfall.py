"""The waterfall as a file."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.frontier.test_attribution import full, measured
from upcurve.dashboard.waterfall import check_chart_file, waterfall_chart, write_chart
from upcurve.errors import InputError


def test_svg_and_png_are_written_with_every_bar(tmp_path: Path) -> None:
    chart = waterfall_chart([full(measured(3, 0.01))], device="CPU")
    write_chart(tmp_path / "w.svg", chart)
    text = "".join(ElementTree.parse(tmp_path / "w.svg").getroot().itertext())
    for words in ("baseline (all off)", "full (all on)", "per CPU", "At 40 tok/s/user"):
        assert words in text
    write_chart(tmp_path / "w.png", chart)
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.png", "w.svg"]


def test_targets_without_shares_are_not_drawn() -> None:
    empty = full({0: {}})
    assert len(waterfall_chart([full(measured(1, 0)), empty])["vconcat"]) == 1
    with pytest.raises(InputError, match="no target has shares"):
        waterfall_chart([empty])


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    check_chart_file(tmp_path / "w.svg")
    for bad in (tmp_path / "w.pdf", tmp_path / "none" / "w.svg"):
        with pytest.raises(InputError, match="--chart"):
            check_chart_file(bad)
