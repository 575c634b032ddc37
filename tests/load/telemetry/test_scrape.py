from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.load.telemetry.expositions import VLLM, State
from upcurve.errors import InputError
from upcurve.load.telemetry import scrape
from upcurve.load.telemetry.scrape import MetricsScraper

PATIENCE_S = 30.0


@dataclass
class Endpoint:
    """What /metrics answers, one after the other; the last answer for ever."""

    answers: list[tuple[int, str] | None]
    """Status and text; None: no answer until the end."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of every request."""
    origin: str = ""
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Raised when a request arrives."""
    end: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list)

    def wait_for(self, requests: int) -> None:
        for _ in range(requests):
            assert self.asked.acquire(timeout=PATIENCE_S)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIMEOUT_S", "FIND_TIMEOUT_S"):
        monkeypatch.setattr(scrape, name, PATIENCE_S)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint([])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.headers.append(dict(self.headers))
            state.paths.append(self.path)
            answer = state.answers[min(len(state.headers), len(state.answers)) - 1]
            state.asked.release()
            if answer is None:
                state.end.wait(PATIENCE_S)
                return
            status, text = answer
            self.send_response(status)
            if status == 302:
                self.send_header("Location", text)
            body = text.encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        state.origin = f"http://127.0.0.1:{server.server_port}"
        yield state
        state.end.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, held so that nobody comes to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def vllm(generated: int, running: int = 1) -> tuple[int, str]:
    return 200, State(generated=generated, running=running).write(VLLM)


def test_counters_advance_as_served(endpoint: Endpoint) -> None:
    endpoint.answers = [vllm(100, 2), vllm(250, 6), vllm(700)]
    scraper = MetricsScraper(endpoint.origin + "/metrics", interval_s=0.01)
    scraper.start()
    endpoint.wait_for(4)
    metrics = scraper.stop()
    assert not metrics.failures_ns
    times = [each.time_ns for each in metrics.scrapes]
    assert times == sorted(times)
    assert len(times) == len(endpoint.headers)
    summary = metrics.summary(times[0], times[2])
    assert summary["engine"] == "vllm"
    assert summary["scrapes"] == 3
    assert summary["running"] == {"mean": 3.0, "max": 6.0}
    assert summary["generation_tokens_per_s"] == pytest.approx(600e9 / (times[2] - times[0]))


def test_stop_scrapes_a_last_time(endpoint: Endpoint) -> None:
    endpoint.answers = [vllm(100), vllm(900)]
    scraper = MetricsScraper(endpoint.origin + "/metrics", interval_s=3600)
    scraper.start()
    endpoint.wait_for(1)
    metrics = scraper.stop()
    assert len(metrics.scrapes) == 2
    span = (metrics.scrapes[0].time_ns, metrics.scrapes[1].time_ns)
    rate = metrics.summary(*span)["generation_tokens_per_s"]
    assert rate == pytest.approx(800e9 / (span[1] - span[0]))


def test_failures_are_counted_and_survived(endpoint: Endpoint) -> None:
    garbage = [(500, "broken"), (200, "<html>hello</html>"), (200, "\x00 {{{"), (302, "/other")]
    endpoint.answers = [vllm(100), *garbage, vllm(300)]
    scraper = MetricsScraper(endpoint.origin + "/metrics", interval_s=0.01)
    scraper.start()
    endpoint.wait_for(7)
    metrics = scraper.stop()
    assert len(metrics.failures_ns) == len(garbage)
    assert len(metrics.scrapes) == len(endpoint.headers) - len(garbage)
    first, last = metrics.scrapes[0].time_ns, metrics.scrapes[-1].time_ns
    assert metrics.summary(first, last)["failed_scrapes"] == len(garbage)
    assert set(endpoint.paths) == {"/metrics"}, "a redirect would carry the key elsewhere"


def test_a_hanging_server_is_a_failure(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT_S", 0.5)
    endpoint.answers = [vllm(1), None, vllm(2)]
    scraper = MetricsScraper(endpoint.origin + "/metrics", interval_s=0.01)
    scraper.start()
    endpoint.wait_for(3)
    # The last one, at least, has all the time that a busy machine takes.
    monkeypatch.setattr(scrape, "TIMEOUT_S", PATIENCE_S)
    metrics = scraper.stop()
    assert len(metrics.failures_ns) >= 1
    assert metrics.scrapes[0].values("vllm:generation_tokens_total")


def test_a_server_that_is_gone_is_a_failure(nobody: str) -> None:
    scraper = MetricsScraper(nobody + "/metrics", interval_s=0.01)
    scraper.start()
    metrics = scraper.stop()
    assert not metrics.scrapes
    assert metrics.failures_ns


def test_find(endpoint: Endpoint) -> None:
    endpoint.answers = [vllm(1)]
    scraper = MetricsScraper.find(endpoint.origin + "/", {"Authorization": "Bearer secret"})
    assert scraper is not None
    assert scraper.url == endpoint.origin + "/metrics"
    assert len(endpoint.headers) == 1
    assert endpoint.headers[0]["Authorization"] == "Bearer secret"
    scraper.start()
    assert len(scraper.stop().scrapes) >= 1


@pytest.mark.parametrize(
    "answer", [(404, "none here"), (200, "<html></html>"), (200, ""), (501, "{}"), None]
)
def test_find_without_metrics(
    endpoint: Endpoint, answer: tuple[int, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is None:
        monkeypatch.setattr(scrape, "FIND_TIMEOUT_S", 0.2)
    endpoint.answers = [answer]
    assert MetricsScraper.find(endpoint.origin) is None
    endpoint.wait_for(1)
    assert len(endpoint.headers) == 1


def test_loopback_needs_no_proxy(
    endpoint: Endpoint, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", nobody)
    monkeypatch.delenv("no_proxy", raising=False)
    endpoint.answers = [vllm(1)]
    assert MetricsScraper.find(endpoint.origin) is not None


def test_only_http() -> None:
    with pytest.raises(InputError, match="metrics url"):
        MetricsScraper("file:///etc/passwd")
