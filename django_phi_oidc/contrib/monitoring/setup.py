"""Attach the metrics sinks of PHI_OIDC['METRICS'] at the start of the process."""

from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from ..._internal import metrics
from . import conf

SINK_CLASSES = {
    "prometheus": "django_phi_oidc.contrib.monitoring.prometheus.PrometheusSink",
    "opentelemetry": "django_phi_oidc.contrib.monitoring.opentelemetry.OpenTelemetrySink",
}


@cache
def get_sink(name: str) -> metrics.MetricsSink:
    """Return that sink, one per process. Raises: ImportError if its extra is not installed."""
    sink: metrics.MetricsSink = import_string(SINK_CLASSES[name])()
    return sink


def attach_declared_sinks() -> None:
    """Attach the sinks named in METRICS, or none if it is invalid, which the checks report."""
    try:
        metrics.set_sinks([get_sink(name) for name in conf.metrics()])
    except (ImproperlyConfigured, ImportError):
        metrics.set_sinks(())


@receiver(setting_changed, dispatch_uid="django_phi_oidc.contrib.monitoring.setup")
def _reattach_sinks(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        attach_declared_sinks()


attach_declared_sinks()
