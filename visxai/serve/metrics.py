"""Figures for Prometheus: what this process did, and how the queue stands in the database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from visxai.errors import StoreError
from visxai.serve.tables import decisions, deliveries, jobs

if TYPE_CHECKING:
    from prometheus_client import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from visxai.serve.service import Service

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one application.

    Args:
        service: The service.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "visxai_requests",
            "Requests by route and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "visxai_request_seconds",
            "Seconds from a request to its answer.",
            ["route", "method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_InDatabase(service))

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request and its time; the label is the route, never the address."""
        route = getattr(scope.get("route"), "path", "other")
        self._requests.labels(route, scope["method"], str(status)).inc()
        self._seconds.labels(route, scope["method"]).observe(seconds)

    def text(self) -> bytes:
        """Write all figures in Prometheus's text format."""
        return generate_latest(self._registry)


class Measured:
    """The ASGI middleware that counts requests.

    Args:
        app: The application.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it once it is answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                spent = f"total;dur={1000 * (time.perf_counter() - began):.1f}"
                message.setdefault("headers", []).append((b"server-timing", spent.encode()))
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            self.metrics.count(scope, status, time.perf_counter() - began)


class _InDatabase(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        """Read how the queue and the cases stand; nothing while the database is away."""
        try:
            with self._service.database.reading() as connection:
                depths = self._service.queue.depths(connection)
                ended = connection.execute(
                    select(jobs.c.lane, jobs.c.state, func.count().label("n")).group_by(
                        jobs.c.lane, jobs.c.state
                    )
                ).all()
                cases = connection.execute(
                    select(decisions.c.lane, func.count().label("n"))
                    .where(decisions.c.state == "open")
                    .group_by(decisions.c.lane)
                ).all()
                posts = connection.execute(
                    select(deliveries.c.state, func.count().label("n")).group_by(deliveries.c.state)
                ).all()
        except StoreError:
            return
        waiting = GaugeMetricFamily("visxai_queue_depth", "Waiting jobs.", labels=["lane"])
        oldest = GaugeMetricFamily(
            "visxai_queue_oldest_seconds", "Age of the oldest waiting job.", labels=["lane"]
        )
        for lane in ("fast", "precise"):
            depth = depths.get(lane)
            waiting.add_metric([lane], depth.waiting if depth else 0)
            oldest.add_metric([lane], depth.oldest if depth else 0)
        states = GaugeMetricFamily("visxai_jobs", "Jobs by state.", labels=["lane", "state"])
        for row in ended:
            states.add_metric([row.lane, row.state], row.n)
        reviews = GaugeMetricFamily("visxai_open_cases", "Open cases.", labels=["lane"])
        for row in cases:
            reviews.add_metric([row.lane], row.n)
        posted = GaugeMetricFamily(
            "visxai_deliveries", "Posts to webhooks by state, of the last week.", labels=["state"]
        )
        for row in posts:
            posted.add_metric([row.state], row.n)
        batcher = self._service.batcher
        forwards = CounterMetricFamily("visxai_decided_forwards", "Forwards that decided on items.")
        forwards.add_metric([], batcher.batches)
        rows = CounterMetricFamily("visxai_decided_rows", "Items that these forwards decided on.")
        rows.add_metric([], batcher.rows)
        yield from (waiting, oldest, states, reviews, posted, forwards, rows)
