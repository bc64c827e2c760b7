"""System checks of `API`."""

from typing import Any

from django.conf import settings
from django.core.checks import Tags

from ... import conf
from ..._internal.check_messages import Messages, error, in_settings, register_check, warning
from ...audit import conf as audit_conf
from . import conf as apis_conf
from .declaration import APIDeclaration, ClientTokensDeclaration, list_api_faults


@register_check(Tags.security)
def check_apis(**kwargs: Any) -> Messages:
    """E026: useless or unsafe declarations; W026: requests to the provider inside transactions;
    E107, W107: headers.
    """
    apis = apis_conf.apis()
    client_ids = {name: provider.client_id for name, provider in conf.providers().items()}
    yield from (
        error(26, f"PHI_OIDC: {fault}") for fault in list_api_faults(apis, client_ids=client_ids)
    )
    declared: dict[str, APIDeclaration | ClientTokensDeclaration] = {
        f'API["{name}"]': api for name, api in apis.items()
    }
    for name, scim in conf.scim().items():
        if scim.access_tokens is not None:
            declared[f'PROVIDERS["{name}"]["scim"]["access_tokens"]'] = scim.access_tokens
    for path in [path for path, api in declared.items() if api.allow_client_cert_header]:
        option, rest = path.split("[", 1)
        line = in_settings(f'del PHI_OIDC["{option}"][{rest}["allow_client_cert_header"]')
        if not audit_conf.trusted_proxies():
            text = (
                f"{path}['allow_client_cert_header']: TRUSTED_PROXIES "
                "is empty, so the header is never read."
            )
            yield error(107, f"PHI_OIDC: {text}", line)
        else:
            text = (
                f"{path}: the proxy must remove Client-Cert from "
                "requests, or clients can forge certificates."
            )
            yield warning(107, f"PHI_OIDC: {text}", line)
    if apis and settings.DATABASES["default"].get("ATOMIC_REQUESTS"):
        message = (
            "PHI_OIDC['API']: with ATOMIC_REQUESTS, a transaction is "
            "open during requests to the provider, and"
        )
        hint = "Mark views that accept access tokens with transaction.non_atomic_requests."
        yield warning(26, f"{message} refusals are not counted.", hint)
