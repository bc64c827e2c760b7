"""System checks of `API`; those of all else are in checks.py, where docs/reference/checks.md leads, too."""

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..config.apis import list_api_faults


def _error(number: int, message: str) -> checks.Error:
    return checks.Error(f"PHI_OIDC: {message}", id=f"django_phi_oidc.E{number:03}")


def _warning(number: int, message: str, hint: str) -> checks.Warning:
    return checks.Warning(f"PHI_OIDC['API']: {message}", hint=hint, id=f"django_phi_oidc.W{number:03}")


@register(Tags.security)
def check_apis(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E026: declarations that are of no use, or unsafe; W026: requests to the provider inside of transactions."""
    try:
        apis, providers = conf.apis(), conf.providers()
    except ImproperlyConfigured:
        # E002 tells of it.
        return []
    clients = {name: provider.client_id for name, provider in providers.items()}
    found: list[CheckMessage] = [_error(26, fault) for fault in list_api_faults(apis, client_ids=clients)]
    if apis and settings.DATABASES["default"].get("ATOMIC_REQUESTS"):
        message = "ATOMIC_REQUESTS: the provider is asked inside a transaction, and no refusal is counted."
        found.append(_warning(26, message, "Mark views that take access tokens with transaction.non_atomic_requests."))
    return found
