"""What the doctor finds in the certificates that the client presents or names. No Django."""

from collections.abc import Iterator
from datetime import datetime

from ...config.certificates import CERTIFICATE_EXPIRY_WARNING
from ...config.providers import ProviderDeclaration
from ...errors import DeclarationInvalid, TransportError
from ...provider.mutual_tls import list_certificate_expiries, validate_client_certificate
from ..common.provider_findings import ProviderFinding


def check_client_certificates(
    declaration: ProviderDeclaration, *, now: datetime
) -> Iterator[ProviderFinding]:
    """Check that the files can be used, and their expiry. An expired one is still used: the
    provider refuses it.
    """
    try:
        validate_client_certificate(declaration)
        expiries = list_certificate_expiries(declaration)
    except (DeclarationInvalid, TransportError) as error:
        remedy = (
            "Declare a PEM file with the certificate and its "
            "unencrypted private key, which this user may read."
        )
        yield ProviderFinding(
            check="client",
            level="failure",
            code="django_phi_oidc.E106",
            text=str(error),
            remedy=remedy,
        )
        return
    for option, expires_at in expiries:
        text = f"{option}: certificate until {expires_at:%Y-%m-%d} ({(expires_at - now).days} days)"
        if expires_at - now < CERTIFICATE_EXPIRY_WARNING:
            code = "client_certificate_expires"
            remedy = "Renew it, and register it before that day."
            yield ProviderFinding(
                check="client", level="warning", code=code, text=text, remedy=remedy
            )
        else:
            yield ProviderFinding(check="client", level="ok", text=text)
