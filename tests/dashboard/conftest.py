"""Stores behind the dashboard's application, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.dashboard.browser.stores import rich
from upcurve.dashboard.app import create_app
from upcurve.dashboard.reader import Reader
from upcurve.records.rows import import_rows
from upcurve.records.store import Store

TOKEN = "a-long-secret"


def client_of(store: Store, token: str | None = None) -> TestClient:
    app = create_app(Reader(store), token=token)
    return TestClient(app, base_url="http://localhost")


@pytest.fixture(scope="package")
def published_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    with Store.open(folder) as store:
        import_rows(store, "published:mi355x-qwen35")
    return folder


@pytest.fixture(scope="package")
def rich_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve nightly builds with three repeats, a planted step, accuracy, requests and a log."""
    folder = tmp_path_factory.mktemp("rich")
    rich(folder)
    return folder


@pytest.fixture(scope="module")
def published(published_folder: Path) -> Iterator[TestClient]:
    with Store.open(published_folder) as store, client_of(store) as client:
        yield client


@pytest.fixture(scope="module")
def nightlies(rich_folder: Path) -> Iterator[TestClient]:
    with Store.open(rich_folder) as store, client_of(store) as client:
        yield client
