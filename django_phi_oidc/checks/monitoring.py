"""System checks of the leak guard and of the metrics."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.middleware.gzip import GZipMiddleware
from django.utils.module_loading import import_string

from .. import conf

LEAKAGE_GUARD_MIDDLEWARE = "django_phi_oidc.middleware.LeakageGuardMiddleware"
METRICS_PACKAGES = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry.metrics"}


def _error(number: int, message: str, hint: str) -> checks.Error:
    return checks.Error(message, hint=hint, id=f"django_phi_oidc.E{number:03}")


def _warning(number: int, message: str, hint: str) -> checks.Warning:
    return checks.Warning(message, hint=hint, id=f"django_phi_oidc.W{number:03}")


@register(Tags.security)
def check_metrics(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E030: METRICS names what is not installed, and nothing is counted for it."""
    try:
        named = conf.metrics()
    except ImproperlyConfigured:
        return []
    return [
        _error(30, f"PHI_OIDC['METRICS']: {name} is not installed.", f"pip install 'django-phi-oidc[{name}]'")
        for name in named
        if not _is_installed(METRICS_PACKAGES[name])
    ]


@register(Tags.security)
def check_leakage_guard(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W030: the leak guard, where it is in use, does not see what it is for."""
    order = list(settings.MIDDLEWARE)
    if LEAKAGE_GUARD_MIDDLEWARE not in order:
        return []
    classes = [each for each in map(import_string, order) if isinstance(each, type)]
    position = classes.index(import_string(LEAKAGE_GUARD_MIDDLEWARE))
    unseen = (
        *_list_subclass_names(SessionMiddleware, classes[:position]),
        *_list_subclass_names(GZipMiddleware, classes[position:]),
    )
    hint = "GZipMiddleware comes first, then the guard, then whatever writes cookies and pages."
    return [_warning(30, f"{LEAKAGE_GUARD_MIDDLEWARE} is on the wrong side of {name}.", hint) for name in unseen]


def _list_subclass_names(base_class: type, classes: Sequence[type]) -> list[str]:
    return [each.__name__ for each in classes if issubclass(each, base_class)]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
