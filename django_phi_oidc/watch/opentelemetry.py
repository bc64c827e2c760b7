"""Metrics for OpenTelemetry, with the extra `opentelemetry`: a sink for whatever meter provider the project has set."""

from collections.abc import Callable, Iterator, Mapping

from django.db import DEFAULT_DB_ALIAS, connections
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from .. import __version__
from ..audit.routing import AUDIT_ALIAS
from ..metering import COUNTED, TIMED, Metric
from .metrics import GAUGES, Gauges

PREFIX = "phi_oidc"


class OpenTelemetrySink:
    """Counts and times with a meter of the project's provider, which may be set later, too."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        meter = get_meter("django_phi_oidc", __version__, provider)
        self._counters = {
            metric: meter.create_counter(f"{PREFIX}.{metric.name}", description=metric.help) for metric in COUNTED
        }
        self._histograms = {
            metric: meter.create_histogram(f"{PREFIX}.{metric.name}", unit="s", description=metric.help)
            for metric in TIMED
        }
        gauges = Gauges()
        for name, gauge in GAUGES.items():
            meter.create_observable_gauge(f"{PREFIX}.{name}", [_observing(gauges, name)], description=gauge.help)

    def count(self, metric: Metric, labels: Mapping[str, str]) -> None:
        """Count one more."""
        self._counters[metric].add(1, labels)

    def observe(self, metric: Metric, seconds: float, labels: Mapping[str, str]) -> None:
        """Note how long something took."""
        self._histograms[metric].record(seconds, labels)


def _observing(gauges: Gauges, name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        try:
            known = gauges.read()
        finally:
            # The exporter's own thread: no request's end closes what it has opened.
            for alias in (DEFAULT_DB_ALIAS, AUDIT_ALIAS):
                if not connections[alias].in_atomic_block:
                    connections[alias].close()
        if name in known:
            yield Observation(known[name])

    return observe
