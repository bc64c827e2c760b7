"""The portal is registered at an OP as it is declared, and what the OP made of that is looked at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..config.providers import ProviderDeclaration
from ..errors import AlgUnsupported, IssuerMismatch, MetadataInvalid, RegistrationUnsupported
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
from .diagnostics import ProviderFinding

TIMEOUT_SECONDS = 30.0
"""For each answer: some OPs fetch the client's own documents before they give theirs."""
_MAX_EXPIRY_TIMESTAMP = 2**33
"""Seconds since the epoch, in the year 2242."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationResult:
    """What an OP has registered."""

    members: Mapping[str, Any] = field(repr=False)
    """All that it answered; secrets are in it."""
    findings: tuple[ProviderFinding, ...]


def register_client(
    declaration: ProviderDeclaration, *, addresses: ClientURLs, initial_access_token: str, transport: Transport
) -> RegistrationResult:
    """Register a new client at the OP, once: a second time makes another one.

    Raises: TransportError; MetadataInvalid, IssuerMismatch, AlgUnsupported, RegistrationUnsupported: nothing was sent
    there; RegistrationRefused.
    Spec: RFC 7591 3.
    """
    members = diagnostics.find_metadata_members(
        transport.send(build_metadata_request(issuer=declaration.issuer), timeout_seconds=TIMEOUT_SECONDS)
    )
    if members is None:
        raise MetadataInvalid
    if members.get("issuer") != declaration.issuer:
        raise IssuerMismatch
    endpoint = members.get("registration_endpoint")
    if not isinstance(endpoint, str):
        raise RegistrationUnsupported
    validate_https_url(endpoint, allow_loopback_http=declaration.allow_loopback_http)
    algs = diagnostics.list_usable_algs(members, declaration.id_token_signed_response_alg)
    if not algs:
        raise AlgUnsupported
    asked = build_client_metadata(declaration, client_urls=addresses, provider_metadata=members, id_token_alg=algs[0])
    request = build_registration_request(endpoint, metadata=asked, initial_access_token=initial_access_token)
    answered = process_registration_response(transport.send(request, timeout_seconds=TIMEOUT_SECONDS))
    return RegistrationResult(members=answered, findings=tuple(_compare_registration(asked, answered)))


def _compare_registration(requested: Mapping[str, Any], registered: Mapping[str, Any]) -> Iterator[ProviderFinding]:
    told = {each.name: each.level for each in compare_registration(requested, registered)}
    for name, wanted in requested.items():
        if level := told.get(name):
            text = f"{name}: asked for {wanted}, and registered is {registered.get(name, 'nothing')}"
            remedy = "Let the provider mend it by hand, or declare what it has."
            yield ProviderFinding(
                check="registered",
                level=level,
                code="registered_otherwise",
                text=diagnostics.sanitize_text(text),
                remedy=remedy,
            )
        else:
            yield ProviderFinding(check="registered", level="ok", text=diagnostics.sanitize_text(f"{name}: {wanted}"))
    ends = registered.get("client_secret_expires_at")
    if type(ends) is int and 0 < ends < _MAX_EXPIRY_TIMESTAMP and "client_secret" in registered:
        told_end = f"client_secret: until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC"
        remedy = "Renew it before that, at the client's registration_client_uri."
        yield ProviderFinding(check="registered", level="warning", code="secret_expires", text=told_end, remedy=remedy)
