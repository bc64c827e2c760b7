"""Metrics for OpenTelemetry, with the extra `opentelemetry`: a sink for the project's meter
provider.
"""

from collections.abc import Callable, Iterator, Mapping

from django.db import DEFAULT_DB_ALIAS, connections
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from ... import __version__
from ..._internal.metrics import COUNTERS, TIMERS, Metric
from ...audit.router import AUDIT_ALIAS
from .gauges import GAUGES, GaugeCache

PREFIX = "phi_oidc"


class OpenTelemetrySink:
    """Counts and times with a meter of the project's meter provider, which may be set later."""

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = get_meter("django_phi_oidc", __version__, meter_provider)
        self._counters = {}
        for metric in COUNTERS:
            self._counters[metric] = meter.create_counter(
                f"{PREFIX}.{metric.name}", description=metric.help
            )
        self._histograms = {}
        for metric in TIMERS:
            self._histograms[metric] = meter.create_histogram(
                f"{PREFIX}.{metric.name}", unit="s", description=metric.help
            )
        gauges = GaugeCache()
        for name, gauge in GAUGES.items():
            meter.create_observable_gauge(
                f"{PREFIX}.{name}", [_gauge_callback(gauges, name)], description=gauge.help
            )

    def increment(self, metric: Metric, labels: Mapping[str, str]) -> None:
        self._counters[metric].add(1, labels)

    def observe(self, metric: Metric, seconds: float, labels: Mapping[str, str]) -> None:
        self._histograms[metric].record(seconds, labels)


def _gauge_callback(
    gauges: GaugeCache, name: str
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        try:
            values = gauges.read()
        finally:
            # In the thread of the exporter, no end of a request closes the connections.
            for alias in (DEFAULT_DB_ALIAS, AUDIT_ALIAS):
                if not connections[alias].in_atomic_block:
                    connections[alias].close()
        if name in values:
            yield Observation(values[name])

    return observe
