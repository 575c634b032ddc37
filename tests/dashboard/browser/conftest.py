"""A browser, dashboards in processes of their own, and pages that complain."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.dashboard.browser import stores
from tests.dashboard.test_runs import ablation
from upcurve.cli import run
from upcurve.records.store import Store

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PRESET = "?view=compare&series=feb&series=apr&series=may&baseline=feb&at=20,30,40,50,60"
PRESET += "&isl=8192&osl=1024"


# One for each file: while Playwright is started, its event loop counts as running in this thread,
# and tests of other files in the same process run loops of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Dashboard:
    """`upcurve dashboard` over one store."""

    def __init__(self, store: Path) -> None:
        self.store = store
        command = [sys.executable, "-m", "upcurve", "dashboard", "--port", "0", "--json"]
        self._process = subprocess.Popen(
            [*command, "--store", str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        self.url: str = json.loads(self._process.stdout.readline())["url"]

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=60)


def published(store: Path) -> Path:
    """Bring the published series into a store, as a user does."""
    with pytest.raises(SystemExit) as ended:
        run(["import", "published:mi355x-qwen35", "--store", str(store)])
    assert not ended.value.code
    return store


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of published series, nightly builds, an ablation, and texts that attack."""
    store = published(tmp_path_factory.mktemp("stores") / "full")
    stores.rich(store)
    stores.hostile(store)
    with Store.open(store) as opened:
        ablation(opened)
    return store


@pytest.fixture(scope="session")
def full(full_store: Path) -> Iterator[Dashboard]:
    started = Dashboard(full_store)
    yield started
    started.close()


class Visitor:
    """A page that keeps what a good page never does: errors, dialogs, other hosts, overflow."""

    def __init__(self, page: playwright.Page) -> None:
        self.page = page
        self.wrongs: list[str] = []
        self._hosts: set[str] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrongs.append(f"error {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)
        page.set_default_timeout(30_000)

    def open(self, url: str) -> playwright.Page:
        """Go to an address and wait until everything is drawn."""
        self._hosts.add(urlsplit(url).netloc)
        self.page.goto(url)
        return self.settle()

    def settle(self) -> playwright.Page:
        """Wait until nothing is being read."""
        self.page.wait_for_selector("main")
        self.page.wait_for_selector("[aria-busy=true]", state="detached")
        return self.page

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def _console(self, message: playwright.ConsoleMessage) -> None:
        refused = "Failed to load resource" in message.text  # the API's refusals, shown by the page
        if message.type in ("error", "warning") and not refused:
            self.wrongs.append(f"{message.type} {message.text}")

    def _dialog(self, dialog: playwright.Dialog) -> None:
        self.wrongs.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _request(self, request: playwright.Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc not in self._hosts:
            self.wrongs.append(f"asked {request.url}")


@pytest.fixture
def visit(browser: playwright.Browser) -> Iterator[Callable[..., Visitor]]:
    """Open windows; at the end of the test none of them may have gone wrong."""
    opened: list[tuple[playwright.BrowserContext, Visitor]] = []

    def window(width: int = 1280, scheme: str = "light") -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        visitor = Visitor(context.new_page())
        opened.append((context, visitor))
        return visitor

    yield window
    for context, visitor in opened:
        context.close()
        assert visitor.wrongs == []
