"""System checks of `API`."""

from typing import Any

from django.conf import settings
from django.core.checks import Tags

from ... import conf
from ..._internal.check_messages import Messages, error, register_check, warning
from ..common.option_checks import check_client_cert_header
from . import conf as apis_conf
from .declaration import list_api_faults


@register_check(Tags.security)
def check_apis(**kwargs: Any) -> Messages:
    """E026: useless or unsafe declarations; W026: requests to the provider inside transactions;
    E107, W107: `allow_client_cert_header`.
    """
    apis = apis_conf.apis()
    client_ids = {name: provider.client_id for name, provider in conf.providers().items()}
    for fault in list_api_faults(apis, client_ids=client_ids):
        yield error(26, f"PHI_OIDC: {fault}")
    for name, api in apis.items():
        if api.allow_client_cert_header:
            yield from check_client_cert_header(f'API["{name}"]')
    if apis and settings.DATABASES["default"].get("ATOMIC_REQUESTS"):
        message = (
            "PHI_OIDC['API']: with ATOMIC_REQUESTS, a transaction is "
            "open during requests to the provider, and"
        )
        hint = "Mark views that accept access tokens with transaction.non_atomic_requests."
        yield warning(26, f"{message} refusals are not counted.", hint)
