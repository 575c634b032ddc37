from __future__ import annotations

from itertools import pairwise

import pytest

from upcurve.load.arrivals import ClosedLoop, OpenLoop
from upcurve.load.known_server import Behaviour, known_server_process
from upcurve.load.limits import Limits, Machine
from upcurve.load.metrics import Goal
from upcurve.load.session import Session, Settings
from upcurve.load.target import Target
from upcurve.load.workload import SyntheticWorkload

WORKLOAD = SyntheticWorkload.exact(16, 32)


@pytest.fixture(scope="module")
def server():
    with known_server_process(Behaviour(first_ms=20, interval_ms=5, api_key="k")) as (base_url, _):
        yield Target(base_url, "known", "k")


def test_a_point_has_the_servers_side_and_the_calibration(server, monkeypatch, tmp_path):
    monkeypatch.setenv("UPCURVE_CALIBRATION", str(tmp_path / "c.json"))
    limits = Limits(Machine.this(1), "2026-11-23T10:00:00+00:00", 1e6, 1024)
    limits.save(tmp_path / "c.json")
    with Session(server, Settings(gpus=2, workers=1, goal=Goal(ttft_ms=5000))) as session:
        session.probe(WORKLOAD)
        result = session.point(WORKLOAD, ClosedLoop(4, requests=40))
    point = result.figures
    assert (point["requests"], point["failed"]) == (40, 0)
    assert point["client"]["calibration"] == limits.facts()
    assert point["client"]["load"] == pytest.approx(point["client"]["chunks_per_s"] / 1e6)
    assert point["goodput"]["share"] == 1.0
    assert point["server"]["scrapes"] >= 1
    assert result.telemetry["server"].num_rows > 0
    assert point["power"] is None  # no GPU of this machine serves it, or there is none
    assert point["output_tput_per_gpu"] == pytest.approx(40 * 32 / point["duration_s"] / 2)


def test_an_open_loop_keeps_its_own_time(server):
    with Session(server, Settings(scrape=False)) as session:
        session.probe(WORKLOAD)
        load = OpenLoop(40, process="constant", requests=40)
        result = session.point(WORKLOAD.salted("open"), load, warmup=2)
    point = result.figures
    assert point["server"] is None
    measured = sorted((t for t in result.traces if not t.warm_up), key=lambda t: t.scheduled_ns)
    gaps = {b.scheduled_ns - a.scheduled_ns for a, b in pairwise(measured)}
    assert gaps == {25_000_000}
    # A busy machine sends late; what it delivered is said as it was.
    sent = sorted(each.sent_ns for each in measured)
    assert point["delivered_rate"] == pytest.approx(39 / (sent[-1] - sent[0]) * 1e9)
    assert all(each.sent_ns >= each.scheduled_ns for each in measured)
    assert sum(each.warm_up for each in result.traces) == 2


def test_another_page_of_metrics(server):
    url = server.base_url + "/nothing"
    with Session(server, Settings(metrics_url=url)) as session:
        session.probe(WORKLOAD)
        result = session.point(WORKLOAD.salted("page"), ClosedLoop(1, requests=1))
    assert result.figures["failed"] == 0
    assert result.figures["server"]["scrapes"] == 0
    assert result.telemetry["server"].num_rows == 0
