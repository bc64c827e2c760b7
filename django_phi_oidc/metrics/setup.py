"""Metrics go where PHI_OIDC['METRICS'] says, from the start of the process on."""

from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from .. import conf
from .._internal import metrics

SINK_CLASSES = {
    "prometheus": "django_phi_oidc.metrics.prometheus.PrometheusSink",
    "opentelemetry": "django_phi_oidc.metrics.opentelemetry.OpenTelemetrySink",
}


@cache
def get_sink(name: str) -> metrics.MetricsSink:
    """Return that sink, one for the process. Raises: ImportError where its extra is not installed."""
    made: metrics.MetricsSink = import_string(SINK_CLASSES[name])()
    return made


def attach_declared_sinks() -> None:
    """Attach what METRICS names; what is wrong with it the checks say."""
    try:
        metrics.set_sinks([get_sink(name) for name in conf.metrics()])
    except (ImproperlyConfigured, ImportError):
        metrics.set_sinks(())


@receiver(setting_changed, dispatch_uid="django_phi_oidc.metrics.setup")
def _reattach_sinks(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        attach_declared_sinks()


attach_declared_sinks()
