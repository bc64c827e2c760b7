"""Metrics go where PHI_OIDC['METRICS'] says, from the start of the process on."""

from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from .. import conf, metering

SINKS = {
    "prometheus": "django_phi_oidc.watch.prometheus.PrometheusSink",
    "opentelemetry": "django_phi_oidc.watch.opentelemetry.OpenTelemetrySink",
}


@cache
def sink(name: str) -> metering.Sink:
    """Return that sink, one for the process. Raises: ImportError where its extra is not installed."""
    made: metering.Sink = import_string(SINKS[name])()
    return made


def attach_declared_sinks() -> None:
    """Attach what METRICS names; what is wrong with it the checks say."""
    try:
        metering.attach([sink(name) for name in conf.metrics()])
    except (ImproperlyConfigured, ImportError):
        metering.attach(())


@receiver(setting_changed, dispatch_uid="django_phi_oidc.watch.receivers")
def _attach_again(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        attach_declared_sinks()


attach_declared_sinks()
