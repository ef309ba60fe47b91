"""What /metrics tells Prometheus: requests by route and status, how long they took, and what the models were at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raylib.serve.batcher import Batcher
from raylib.serve.protocol import Served

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """A registry of its own, so that several applications fit into one process."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        labels = {"labelnames": ("route", "status"), "registry": self.registry}
        self.requests = Counter("raylib_requests", "Requests that were answered", **labels)
        self.seconds = Histogram(
            "raylib_request_seconds",
            "Seconds until the answer was sent",
            labelnames=("route",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.under_way = Gauge("raylib_requests_under_way", "Requests not yet answered", registry=self.registry)
        self._served = served
        self.registry.register(self)  # pyright: ignore[reportArgumentType]

    def collect(self) -> Iterator[Any]:
        """Of every model, as it is now; see `prometheus_client.registry.Collector`."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        batchers = {one.name: one.embedder for one in self._served.values() if isinstance(one.embedder, Batcher)}
        for name, about in _OF_MODELS.items():
            family = GaugeMetricFamily if name in ("waiting", "running") else CounterMetricFamily
            found = family(f"raylib_model_{name}", about, labels=["model"])
            for model, batcher in batchers.items():
                source = batcher if name in ("waiting", "running") else batcher.stats
                found.add_metric([model], getattr(source, name))
            yield found

    def text(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


_OF_MODELS = {
    "waiting": "Inputs that are in no batch yet",
    "running": "Batches under way",
    "batches": "Forwards of batches",
    "contents": "Inputs that were embedded",
    "tokens": "Tokens of these",
    "seconds": "Seconds of batches, overlapping where they do",
    "deaths": "Batches over which a worker died",
    "expired": "Requests whose time ran out",
    "overloaded": "Requests that found the queue full",
}


class Measured:
    """ASGI middleware that counts. Routes, not paths: a client's ids are no labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.under_way.inc()
        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.under_way.dec()
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
