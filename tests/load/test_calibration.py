from __future__ import annotations

import pytest

from upcurve.load import calibration
from upcurve.load.calibration import calibrate
from upcurve.load.client import ClientError
from upcurve.load.known_server import Behaviour
from upcurve.load.limits import Machine


@pytest.fixture
def short(monkeypatch):
    """Make a calibration of a second out of one of minutes."""
    monkeypatch.setattr(calibration, "BEHAVIOUR", Behaviour(first_ms=100, interval_ms=25))
    monkeypatch.setattr(calibration, "OSL", 16)
    monkeypatch.setattr(calibration, "LADDER", (1, 2))
    monkeypatch.setattr(calibration, "MOST_STREAMS", 4)


def test_a_calm_client_keeps_all_bars(short, monkeypatch):
    # A busy machine may be late by far more than the bars: what is tested is the way there.
    for name in ("TTFT_BAR_MS", "TPOT_BAR", "DELIVERED_BAR", "LAG_BAR_MS"):
        monkeypatch.setattr(calibration, name, 1e6)
    told = []
    limits = calibrate(1, told=told.append)
    assert [row["streams"] for row in limits.rows] == [row["streams"] for row in told] == [1, 2, 4]
    assert limits.machine == Machine.this(1)
    assert limits.streams == 4
    assert limits.chunks_per_s == max(row["chunks_per_s"] for row in limits.rows)
    for row in limits.rows:
        # Each request is sent before it arrives, and read after it was written.
        assert 100 <= row["true_ttft_ms"] <= row["ttft_ms"] < row["true_ttft_ms"] + 200
        assert row["tpot_ms"] == pytest.approx(row["true_tpot_ms"], rel=0.3)
        assert 0.6 * row["streams"] < row["in_server"] <= row["streams"]
        assert row["failed"] == 0
        assert row["cpu_us_per_chunk"] > 0


def test_what_no_client_can_keep_is_an_error(short, monkeypatch):
    monkeypatch.setattr(calibration, "LAG_BAR_MS", 1e-9)
    with pytest.raises(ClientError, match="too busy to calibrate"):
        calibrate(1)


@pytest.mark.parametrize(
    ("change", "strain"),
    [
        ({}, 0.1),
        ({"ttft_ms": 101.5}, 0.5),
        ({"ttft_ms": 97.0}, 1.0),
        ({"tpot_ms": 20.2}, 2.0),
        ({"in_server": 60.8}, 2.5),
        ({"lag_p99_ms": 30.0}, 3.0),
        ({"failed": 1}, 1e9),
        ({"in_server": None}, 1e9),
    ],
)
def test_the_worst_error_decides(change, strain):
    row = {
        "streams": 64, "ttft_ms": 100.0, "true_ttft_ms": 100.0, "tpot_ms": 20.0,
        "true_tpot_ms": 20.0, "in_server": 64.0, "lag_p99_ms": 1.0, "failed": 0,
    }  # fmt: skip
    assert calibration._strain(row | change) == pytest.approx(strain)
