"""System checks of `API`."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..config.apis import list_api_faults
from ._messages import error, warning


@register(Tags.security)
def check_apis(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E026: useless or unsafe declarations; W026: requests to the provider inside transactions."""
    try:
        apis, providers = conf.apis(), conf.providers()
    except ImproperlyConfigured:  # E002 reports it
        return []
    client_ids = {name: provider.client_id for name, provider in providers.items()}
    messages: list[CheckMessage] = [
        error(26, f"PHI_OIDC: {fault}") for fault in list_api_faults(apis, client_ids=client_ids)
    ]
    if apis and settings.DATABASES["default"].get("ATOMIC_REQUESTS"):
        message = "PHI_OIDC['API']: with ATOMIC_REQUESTS, a transaction is open during requests to the provider, and"
        hint = "Mark views that accept access tokens with transaction.non_atomic_requests."
        messages.append(warning(26, f"{message} refusals are not counted.", hint))
    return messages
