"""Points appear while another process writes the store."""

from __future__ import annotations

from pathlib import Path

from tests.dashboard.browser.conftest import Dashboard
from tests.dashboard.browser.test_views import Window
from tests.records.examples import point_record, run_record
from upcurve.records.store import Store


def test_points_of_a_running_sweep_appear_by_themselves(visit: Window, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        run = store.begin_run(run_record(series="running"))
        for concurrency, tput in [(4, 900.0), (8, 1400.0)]:
            speed = 80.0 - 4 * concurrency
            store.add_point(
                run,
                point_record(
                    concurrency=concurrency,
                    tput_per_gpu=tput,
                    interactivity=speed,
                    tpot_ms=1000 / speed,
                ),
            )
        dashboard = Dashboard(tmp_path / "store")
        try:
            page = visit().open(dashboard.url + "?view=frontier")
            dots = page.locator("[data-chart=frontier] g[aria-label=dot]").last
            assert dots.locator("path, circle").count() == 2
            page.wait_for_selector(".live:has-text('measuring running')")
            store.add_point(
                run, point_record(concurrency=16, tput_per_gpu=2000.0, interactivity=30.0)
            )
            page.wait_for_selector(".live:has-text('1 new point')")
            page.locator("[data-chart=frontier] g[aria-label=dot] >> nth=-1").locator(
                "path >> nth=2"
            ).wait_for(state="attached")
            store.end_run(run, "complete")
            page.wait_for_selector(".live:has-text('live')")
        finally:
            dashboard.close()
