from __future__ import annotations

from datetime import date

from upcurve.records import published


def test_prices_hold_from_their_date() -> None:
    table = published.prices()
    assert table.lookup("MI355X", "hyperscaler", date(2026, 6, 30)).usd_per_gpu_hour == 1.48
    assert table.lookup("MI355X", "hyperscaler", date(2026, 7, 1)).usd_per_gpu_hour == 1.5
    assert len(table.prices) == 54


def test_specifications() -> None:
    specifications = published.specifications()
    assert len(specifications) == 9
    h200, mi355x = specifications["H200"], specifications["MI355X"]
    assert (h200.hbm_tb_per_s, h200.fp8_dense_tflops, h200.fp4_dense_tflops) == (4.8, 1979.0, None)
    assert (mi355x.architecture, mi355x.fp4_dense_tflops) == ("gfx950", 10066.0)
    assert mi355x.all_in_kw == {date(2025, 8, 1): 2.65, date(2026, 7, 1): 2.09}


def test_specifications_and_prices_name_the_same_hardware() -> None:
    assert set(published.specifications()) == set(published.prices().hardware)


def test_changes() -> None:
    assert [(each.change, each.merged_on) for each in published.changes()] == [
        ("sglang#21188", date(2026, 3, 23)),
        ("sglang#21421", date(2026, 3, 26)),
        ("sglang#20736", date(2026, 4, 15)),
    ]


def test_every_file_has_its_source() -> None:
    sources = (published.FOLDER / "SOURCES.md").read_text()
    for file in published.FOLDER.glob("*.csv"):
        assert file.name in sources
