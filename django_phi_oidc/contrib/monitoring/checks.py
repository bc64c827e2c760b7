"""System checks of `ANOMALY_RULES` and `METRICS`."""

from importlib.util import find_spec
from typing import Any

from django.core.checks import Tags

from ..._internal.check_messages import Messages, error, register_check
from ..common.option_checks import check_option
from . import conf
from .tasks import get_declared_rules

METRICS_PACKAGES = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry.metrics"}


@register_check(Tags.security)
def check_anomaly_rules(**kwargs: Any) -> Messages:
    """E002: a rule of the project cannot be imported, or is no rule."""
    yield from check_option(get_declared_rules)


@register_check(Tags.security)
def check_metrics(**kwargs: Any) -> Messages:
    """E030: METRICS names a package that is not installed."""
    for name in conf.metrics():
        if not _is_installed(METRICS_PACKAGES[name]):
            hint = f"pip install 'django-phi-oidc[{name}]'"
            yield error(30, f"PHI_OIDC['METRICS']: {name} is not installed.", hint)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
