"""Register the portal at a provider as declared, and compare what the provider has registered."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..config.providers import ProviderDeclaration
from ..errors import Code, MetadataError, RegistrationUnsupported
from ..oidc.metadata import build_metadata_request, validate_https_url
from ..oidc.registration import (
    ClientURLs,
    build_client_metadata,
    build_registration_request,
    compare_registration,
    process_registration_response,
)
from ..oidc.transport import Transport
from . import diagnostics
from .diagnostics import FindingLevel, ProviderFinding

TIMEOUT_SECONDS = 30.0
"""For each response: some providers fetch the client's documents before they answer."""
_MAX_EXPIRY_TIMESTAMP = 2**33
"""Seconds since the epoch, in the year 2242."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationResult:
    """What a provider has registered."""

    members: Mapping[str, Any] = field(repr=False)
    """The complete response, with its secrets."""
    findings: tuple[ProviderFinding, ...]


def register_client(
    declaration: ProviderDeclaration, *, client_urls: ClientURLs, initial_access_token: str, transport: Transport
) -> RegistrationResult:
    """Register a new client at the provider. Each call creates another client.

    Raises: TransportError; RegistrationRefused; MetadataInvalid, IssuerMismatch, AlgUnsupported or
    RegistrationUnsupported before anything was sent to the registration endpoint. Spec: RFC 7591 3.
    """
    response = transport.send(build_metadata_request(issuer=declaration.issuer), timeout_seconds=TIMEOUT_SECONDS)
    members = diagnostics.find_metadata_members(response)
    if members is None:
        raise MetadataError(Code.METADATA_INVALID)
    if members.get("issuer") != declaration.issuer:
        raise MetadataError(Code.ISSUER_MISMATCH)
    endpoint = members.get("registration_endpoint")
    if not isinstance(endpoint, str):
        raise RegistrationUnsupported
    validate_https_url(endpoint, allow_loopback_http=declaration.allow_loopback_http)
    algs = diagnostics.list_usable_algs(members, declaration.id_token_signed_response_alg)
    if not algs:
        raise MetadataError(Code.ALG_UNSUPPORTED)
    requested = build_client_metadata(
        declaration, client_urls=client_urls, provider_metadata=members, id_token_alg=algs[0]
    )
    request = build_registration_request(endpoint, metadata=requested, initial_access_token=initial_access_token)
    registered = process_registration_response(transport.send(request, timeout_seconds=TIMEOUT_SECONDS))
    return RegistrationResult(members=registered, findings=tuple(_compare_registration(requested, registered)))


def _compare_registration(requested: Mapping[str, Any], registered: Mapping[str, Any]) -> Iterator[ProviderFinding]:
    differences = compare_registration(requested, registered)
    level_by_name: dict[str, FindingLevel] = {difference.name: difference.level for difference in differences}
    for name, value in requested.items():
        if level := level_by_name.get(name):
            text = f"{name}: requested {value}, registered {registered.get(name, 'nothing')}"
            remedy = "Ask the provider to change it, or declare what it has registered."
            code = "registered_otherwise"
        else:
            level, text, code, remedy = "ok", f"{name}: {value}", "", ""
        text = diagnostics.sanitize_text(text)
        yield ProviderFinding(check="registered", level=level, code=code, text=text, remedy=remedy)
    expires_at = registered.get("client_secret_expires_at")
    if type(expires_at) is int and 0 < expires_at < _MAX_EXPIRY_TIMESTAMP and "client_secret" in registered:
        text = f"client_secret: until {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M} UTC"
        remedy = "Renew it before that, at the client's registration_client_uri."
        yield ProviderFinding(check="registered", level="warning", code="secret_expires", text=text, remedy=remedy)
