"""Metrics for Prometheus, with the extra `prometheus`: a sink, and a view to scrape."""

import os
from collections.abc import Iterator, Mapping

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ..._internal.metrics import COUNTERS, TIMERS, Metric
from ..._internal.view_decorators import public_view
from ...access.responses import set_private_headers
from .gauges import GAUGES, GaugeCache

PREFIX = "phi_oidc"


class GaugeCollector(Collector):
    """Reads the gauges when Prometheus scrapes."""

    def __init__(self) -> None:
        self._gauges = GaugeCache()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges without values, and without a query."""
        for name, gauge in GAUGES.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", gauge.help)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges that could be counted."""
        for name, value in self._gauges.read().items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", GAUGES[name].help, value=value)


class PrometheusSink:
    """Counts and times in a registry, by default that of the client, which the project may already
    expose.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counters = {}
        for metric in COUNTERS:
            self._counters[metric] = Counter(
                f"{PREFIX}_{metric.name}", metric.help, metric.labels, registry=registry
            )
        self._histograms = {}
        for metric in TIMERS:
            self._histograms[metric] = Histogram(
                f"{PREFIX}_{metric.name}_seconds", metric.help, metric.labels, registry=registry
            )
        registry.register(GAUGE_COLLECTOR)

    def increment(self, metric: Metric, labels: Mapping[str, str]) -> None:
        self._counters[metric].labels(**labels).inc()

    def observe(self, metric: Metric, seconds: float, labels: Mapping[str, str]) -> None:
        self._histograms[metric].labels(**labels).observe(seconds)


@public_view
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics of the process, or of all processes if PROMETHEUS_MULTIPROC_DIR is set, as
    text.

    There is no authentication: mount it where only Prometheus can reach it.
    """
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped in the client
        registry.register(GAUGE_COLLECTOR)
    return set_private_headers(
        HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
    )


GAUGE_COLLECTOR = GaugeCollector()
