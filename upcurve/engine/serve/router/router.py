"""The router: who is up, who gets the next request, and the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from upcurve.engine.serve.router.balancer import Balancer
from upcurve.engine.serve.router.client import Client
from upcurve.engine.serve.router.replica import Replica
from upcurve.engine.serve.router.upstream import Upstream

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""Between two checks of a replica."""
CHECK_TIMEOUT = 5.0
METRICS_TIMEOUT = 2.0
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Router:
    """Shares requests among replicas."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = list(replicas)
        self.clients: set[Client] = set()
        self.draining = False
        """Whether no new requests are wanted, because the router is about to stop."""
        self._balancer = Balancer()
        self._idle = asyncio.Event()
        self._checks: list[asyncio.Task[None]] = []
        self._suspected = {replica.url: asyncio.Event() for replica in replicas}

    async def start(self) -> None:
        """Check all replicas once, and from then on again and again."""
        await asyncio.gather(*(self._check(replica) for replica in self.replicas))
        self._checks = [asyncio.ensure_future(self._watch(each)) for each in self.replicas]

    async def stop(self, drain_seconds: float) -> None:
        """Let open requests go on for a while, then end them and all connections."""
        self.draining = True
        for client in list(self.clients):
            if not client.busy:
                client.abort()
        if self._open:
            logger.info("waiting for %d requests", self._open)
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), drain_seconds)
            except TimeoutError:
                logger.info("aborting %d requests", self._open)
                for client in list(self.clients):
                    client.stop()
            # What was written last is on its way.
            await asyncio.sleep(0.05)
        for check in self._checks:
            check.cancel()
        for client in list(self.clients):
            client.abort()
        for replica in self.replicas:
            while (upstream := replica.take_idle()) is not None:
                upstream.close()

    @property
    def _open(self) -> int:
        return sum(replica.open for replica in self.replicas)

    def ended(self) -> None:
        """Know that a request has ended."""
        if not self._open:
            self._idle.set()

    def choose(self, pieces: Sequence[int], tried: Collection[str]) -> Replica | None:
        """Return who gets a request, of those that are up and were not tried; None: nobody."""
        loads = {each.url: each.open for each in self.replicas if each.up and each.url not in tried}
        if not loads:
            return None
        chosen = self._balancer.choose(pieces, loads)
        return next(each for each in self.replicas if each.url == chosen)

    def suspect(self, replica: Replica, why: str) -> None:
        """Take a replica out, until a check finds that it is up."""
        replica.set_up(False, why)
        self._suspected[replica.url].set()

    def health(self) -> tuple[int, bytes]:
        """Return status and body of /health: 200 where any replica is up."""
        up = any(each.up for each in self.replicas) and not self.draining
        replicas = [
            {"url": each.url, "up": each.up, "open": each.open}
            | ({} if each.history is None else {"restarts": each.history.restarts})
            | ({"given_up": True} if each.history and each.history.given_up else {})
            for each in self.replicas
        ]
        content = {"status": "ok" if up else "unavailable", "replicas": replicas}
        return 200 if up else 503, orjson.dumps(content)

    async def metrics(self) -> tuple[bytes, bytes]:
        """Return the metrics of all replicas, each with its label, and their type."""
        up = [each for each in self.replicas if each.up]
        texts = await asyncio.gather(*(_get(each, "/metrics", METRICS_TIMEOUT) for each in up))
        registry = CollectorRegistry()
        registry.register(
            _Metrics(self.replicas, dict(zip((e.url for e in up), texts, strict=True)))
        )
        return generate_latest(registry), METRICS_TYPE

    async def _watch(self, replica: Replica) -> None:
        suspected = self._suspected[replica.url]
        while True:
            try:
                await asyncio.wait_for(suspected.wait(), CHECK_SECONDS)
                suspected.clear()
            except TimeoutError:
                pass
            await self._check(replica)

    async def _check(self, replica: Replica) -> None:
        answer = await _get(replica, "/health", CHECK_TIMEOUT)
        replica.set_up(answer is not None, "/health is not answered with 200")


class _Answer:
    """Collects an answer."""

    def __init__(self) -> None:
        self.data = b""
        self.done: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def answer_bytes(self, data: bytes) -> None:
        self.data += data

    def answer_done(self) -> None:
        if not self.done.done():
            self.done.set_result(self.data)

    def answer_lost(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    answer_refused = answer_lost


async def _get(replica: Replica, path: str, seconds: float) -> bytes | None:
    """Return the body of a GET, None where it is not answered with 200 in time."""
    upstream: Upstream | None = None
    try:
        async with asyncio.timeout(seconds):
            upstream = await replica.connect()
            answer = _Answer()
            request = f"GET {path} HTTP/1.1\r\nhost: {replica.host}\r\nconnection: close\r\n\r\n"
            upstream.request(request.encode(), answer)
            data = await answer.done
    except (OSError, TimeoutError):
        return None
    finally:
        if upstream is not None and not upstream.closed:
            upstream.close()
    if data is None or data.split(b" ", 2)[1] != b"200":
        return None
    return data.partition(b"\r\n\r\n")[2]


class _Metrics(Collector):
    """What replicas tell, with a label `replica`, and what the router knows of them."""

    def __init__(self, replicas: Sequence[Replica], texts: dict[str, bytes | None]) -> None:
        self._replicas = replicas
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        for name, text, read in _GAUGES:
            family = GaugeMetricFamily(f"upcurve_router_{name}", text, labels=["replica"])
            for replica in self._replicas:
                family.add_metric([replica.url], read(replica))
            yield family
        restarts = CounterMetricFamily(
            "upcurve_router_replica_restarts",
            "How often a replica was started anew.",
            labels=["replica"],
        )
        for replica in self._replicas:
            if replica.history is not None:
                restarts.add_metric([replica.url], replica.history.restarts)
        if restarts.samples:
            yield restarts
        yield from self._told()

    def _told(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for url, text in self._texts.items():
            for found in text_string_to_metric_families((text or b"").decode()):
                family = families.setdefault(
                    found.name, Metric(found.name, found.documentation, found.type)
                )
                for sample in found.samples:
                    labels = {"replica": url, **sample.labels}
                    family.samples.append(sample._replace(labels=labels))
        yield from families.values()


_GAUGES: tuple[tuple[str, str, Callable[[Replica], float]], ...] = (
    ("replica_up", "Whether a replica is in rotation.", lambda replica: float(replica.up)),
    ("open_requests", "Requests that a replica has.", lambda replica: float(replica.open)),
)
