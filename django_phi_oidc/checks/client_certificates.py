"""System checks of the client's certificates: their files and their expiry."""

from typing import Any

from django.core.checks import Tags

from .. import conf
from .._internal import clock
from .._internal.check_messages import Messages, error, in_settings, register_check, warning
from ..config.certificates import CERTIFICATE_EXPIRY_WARNING
from ..errors import DeclarationInvalid, TransportError
from ..provider.mutual_tls import list_certificate_expiries, validate_client_certificate


@register_check(Tags.security)
def check_client_certificates(**kwargs: Any) -> Messages:
    """E106: the files of a client certificate can't be used; W106: a certificate expires soon, or
    has expired.
    """
    for provider in conf.providers().values():
        subject = f"Provider {provider.name!r}:"
        path = f'PHI_OIDC["PROVIDERS"]["{provider.name}"]'
        try:
            validate_client_certificate(provider)
            expiries = list_certificate_expiries(provider)
        except (DeclarationInvalid, TransportError) as fault:
            yield error(
                106,
                f"{subject} {fault}",
                in_settings(f'{path}["client_certificate"] = "/etc/portal/….pem"'),
            )
            continue
        for option, expires_at in expiries:
            if expires_at - clock.now() < CERTIFICATE_EXPIRY_WARNING:
                text = (
                    f"{subject} the certificate of {option} is valid until {expires_at:%Y-%m-%d}."
                )
                yield warning(
                    106, text, "Renew it, and register the new one at the provider before that day."
                )
