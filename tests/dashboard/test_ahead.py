"""What is made before anyone asks, and that it gives way to who does."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.processes import until
from upcurve.dashboard import ahead
from upcurve.dashboard.answers.chart import frontier
from upcurve.dashboard.answers.overview import overview
from upcurve.dashboard.app import create_app
from upcurve.dashboard.contract.questions import FrontierQuestion, OverviewQuestion
from upcurve.dashboard.reader import Reader
from upcurve.records.store import Store


class Counting(Reader):
    """A reader that knows which parts were made."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.made: list[Hashable] = []

    def remembered(self, key, make):  # type: ignore[no-untyped-def]
        def counted():  # type: ignore[no-untyped-def]
            self.made.append(key)
            return make()

        return super().remembered(key, counted)


def test_what_a_page_shows_first_is_there(rich_folder: Path) -> None:
    with Store.open(rich_folder) as store:
        reader = Counting(store)
        ahead.work_ahead(reader)
        made = list(reader.made)
        assert made
        for group in reader.catalogue().groups.values():
            newest = group.series[: ahead.SERIES]
            frontier(reader, FrontierQuestion(series=newest, isl=group.isl, osl=group.osl))
        overview(reader, OverviewQuestion())
        assert reader.made == made


def test_it_gives_way_to_who_asks(rich_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LINE_QUIET_S", 0.3)
    monkeypatch.setattr(ahead, "ROW_QUIET_S", 0.3)
    with Store.open(rich_folder) as store:
        reader = Counting(store)
        with reader.answering():
            thread = threading.Thread(target=ahead.work_ahead, args=(reader,))
            thread.start()
            time.sleep(0.5)
            assert not reader.made
            # Before it has the answer: a busy machine may come to the next line late.
            asking = time.monotonic()
        assert until(lambda: reader.made)
        assert time.monotonic() - asking > 0.25
        thread.join()


def test_a_request_is_such_a_question(rich_folder: Path) -> None:
    with Store.open(rich_folder) as store:
        reader = Reader(store)
        reader.wait_until_quiet(60)
        with TestClient(create_app(reader, token=None), base_url="http://localhost") as client:
            asking = time.monotonic()
            assert client.get("/api/v1/meta").status_code == 200
        reader.wait_until_quiet(0.5)
        assert time.monotonic() - asking > 0.45
