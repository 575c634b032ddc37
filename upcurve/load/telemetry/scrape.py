"""A thread that reads the server's metrics again and again."""

from __future__ import annotations

import http.client
import ipaddress
import logging
import threading
import time
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from upcurve.errors import InputError
from upcurve.load.telemetry.series import parse_exposition
from upcurve.load.telemetry.server import Scrape, ServerMetrics

TIMEOUT_S = 5.0
FIND_TIMEOUT_S = 2.0

_FAILURES = (OSError, ValueError, http.client.HTTPException)
"""No connection, an error status, a timeout; no exposition; no HTTP."""

_log = logging.getLogger(__name__)


class MetricsScraper:
    """Reads a Prometheus text endpoint every `interval_s` seconds between `start` and `stop`.

    A scrape that fails is counted and changes nothing else.

    Raises:
        InputError: The URL is not http or https.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, interval_s: float = 1.0
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InputError("metrics url", f"{url} is no HTTP address", "give http://HOST:PORT/…")
        self.url = url
        self._headers = {"Accept": "text/plain;version=0.0.4", **(headers or {})}
        self._interval_s = interval_s
        self._opener = _opener(url)
        self._scrapes: list[Scrape] = []
        self._failures_ns: list[int] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="metrics-scraper", daemon=True)

    @classmethod
    def find(cls, origin: str, headers: Mapping[str, str] | None = None) -> MetricsScraper | None:
        """Return a scraper of `origin`/metrics, not started yet; None where there is none."""
        scraper = cls(origin.rstrip("/") + "/metrics", headers=headers)
        try:
            found = scraper._scrape(FIND_TIMEOUT_S)
        except _FAILURES as error:
            _log.debug("no metrics at %s: %s", scraper.url, error)
            return None
        return scraper if found.readings else None

    def start(self) -> None:
        """Begin to scrape, the first time at once."""
        self._thread.start()

    def stop(self) -> ServerMetrics:
        """Scrape a last time, so that a span which ends now is bracketed, and return all."""
        self._stopping.set()
        self._thread.join(2 * TIMEOUT_S + 1)
        return ServerMetrics(tuple(self._scrapes), tuple(self._failures_ns))

    def _watch(self) -> None:
        due = time.perf_counter()
        while True:
            last = self._stopping.is_set()
            try:
                self._scrapes.append(self._scrape(TIMEOUT_S))
            except _FAILURES as error:
                self._failures_ns.append(time.perf_counter_ns())
                _log.debug("scrape of %s failed: %s", self.url, error)
            if last:
                return
            due = max(due + self._interval_s, time.perf_counter())
            self._stopping.wait(due - time.perf_counter())

    def _scrape(self, timeout_s: float) -> Scrape:
        request = urllib.request.Request(self.url, headers=self._headers)  # noqa: S310 - HTTP alone
        asked_ns = time.perf_counter_ns()
        with self._opener.open(request, timeout=timeout_s) as response:
            text = response.read().decode()
        # The server looked at its counters at some moment between the two.
        time_ns = (asked_ns + time.perf_counter_ns()) // 2
        return Scrape(time_ns, tuple(parse_exposition(text)))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a failure: the headers, with the key in them, are for one server alone."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - the signature is the library's
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if _is_loopback(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
