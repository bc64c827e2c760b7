"""The portal is registered at an OP as it is declared, and what the OP made of that is looked at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..declarations import ProviderDeclaration
from ..errors import AlgUnsupported, IssuerMismatch, MetadataInvalid, RegistrationUnsupported
from ..oidc.metadata import build_metadata_request, check_https
from ..oidc.registration import (
    Addresses,
    build_registration_request,
    client_metadata,
    deviations,
    judge_registration_response,
)
from ..oidc.transport import Transport
from . import doctor
from .doctor import Finding

SECONDS = 30.0
"""For each answer: some OPs fetch the client's own documents before they give theirs."""
_FOR_EVER = 2**33
"""Seconds since the epoch, in the year 2242."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What an OP has registered."""

    members: Mapping[str, Any] = field(repr=False)
    """All that it answered; secrets are in it."""
    findings: tuple[Finding, ...]


def register(
    declaration: ProviderDeclaration, *, addresses: Addresses, initial_access_token: str, transport: Transport
) -> Registered:
    """Register a new client at the OP, once: a second time makes another one.

    Raises: TransportError; MetadataInvalid, IssuerMismatch, AlgUnsupported, RegistrationUnsupported: nothing was sent
    there; RegistrationRefused.
    Spec: RFC 7591 3.
    """
    members = doctor.read_members(transport.send(build_metadata_request(issuer=declaration.issuer), deadline=SECONDS))
    if members is None:
        raise MetadataInvalid
    if members.get("issuer") != declaration.issuer:
        raise IssuerMismatch
    endpoint = members.get("registration_endpoint")
    if not isinstance(endpoint, str):
        raise RegistrationUnsupported
    check_https(endpoint, allow_loopback_http=declaration.allow_loopback_http)
    algs = doctor.usable_algs(members, declaration.id_token_signed_response_alg)
    if not algs:
        raise AlgUnsupported
    asked = client_metadata(declaration, addresses=addresses, members=members, alg=algs[0])
    request = build_registration_request(endpoint, metadata=asked, initial_access_token=initial_access_token)
    answered = judge_registration_response(transport.send(request, deadline=SECONDS))
    return Registered(members=answered, findings=tuple(_findings(asked, answered)))


def _findings(asked: Mapping[str, Any], answered: Mapping[str, Any]) -> Iterator[Finding]:
    told = {each.name: each.level for each in deviations(asked, answered)}
    for name, wanted in asked.items():
        if level := told.get(name):
            text = f"{name}: asked for {wanted}, and registered is {answered.get(name, 'nothing')}"
            remedy = "Let the provider mend it by hand, or declare what it has."
            yield Finding(
                check="registered", level=level, code="registered_otherwise", text=doctor.shown(text), remedy=remedy
            )
        else:
            yield Finding(check="registered", level="ok", text=doctor.shown(f"{name}: {wanted}"))
    ends = answered.get("client_secret_expires_at")
    if type(ends) is int and 0 < ends < _FOR_EVER and "client_secret" in answered:
        told_end = f"client_secret: until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC"
        remedy = "Renew it before that, at the client's registration_client_uri."
        yield Finding(check="registered", level="warning", code="secret_expires", text=told_end, remedy=remedy)
