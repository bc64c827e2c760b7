"""Register the portal at a provider as declared, and compare what the provider has registered."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..._internal import clock, randomness
from ...config.certificates import read_certificate_chain
from ...config.providers import ProviderDeclaration
from ...errors import Code, MetadataError
from ...http.transport import Transport
from ...oidc.client_auth import AssertionFreshness
from ...oidc.metadata import (
    build_metadata_request,
    get_metadata_issuer,
    merge_metadata,
    validate_https_url,
    validate_issuer,
)
from ...provider.metadata_documents import find_metadata_source
from ..common.provider_findings import FindingLevel, ProviderFinding, sanitize_text
from ..common.registration import (
    ClientURLs,
    build_client_metadata,
    build_registration_request,
    compare_registration,
    process_registration_response,
)
from ..common.registration_errors import RegistrationUnsupported
from . import diagnostics
from .udap import UDAPClientInformation, build_udap_metadata, build_udap_registration_request

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
    declaration: ProviderDeclaration,
    *,
    client_urls: ClientURLs,
    initial_access_token: str,
    transport: Transport,
    udap: UDAPClientInformation | None = None,
    clock: Callable[[], datetime] = clock.now,
) -> RegistrationResult:
    """Register a new client at the provider. Each call creates another client, except with UDAP.

    udap: register by a software statement. Requires then: the option udap of the declaration.

    Raises: TransportError; RegistrationRefused; DeclarationInvalid, MetadataInvalid,
    IssuerMismatch, AlgUnsupported or RegistrationUnsupported before anything was sent to the
    registration endpoint. Spec: RFC 7591 3; UDAP Security 3.
    """
    if find_metadata_source(declaration) is not None:
        raise RegistrationUnsupported(
            "A member of a federation is registered at the operator of the federation."
        )
    response = transport.send(build_metadata_request(declaration), timeout_seconds=TIMEOUT_SECONDS)
    members = diagnostics.find_metadata_members(response)
    if members is None:
        raise MetadataError(Code.METADATA_INVALID)
    validate_issuer(members, issuer=get_metadata_issuer(declaration))
    members = merge_metadata(members, oauth_members={}, declaration=declaration)
    endpoint = members.get("registration_endpoint")
    if not isinstance(endpoint, str):
        raise RegistrationUnsupported
    validate_https_url(endpoint, allow_loopback_http=declaration.allow_loopback_http)
    algs = diagnostics.list_usable_algs(members, declaration.id_token_signed_response_alg)
    if not algs:
        raise MetadataError(Code.ALG_UNSUPPORTED)
    path = declaration.client_certificate
    if path:
        certificate = read_certificate_chain(path)[0]
    else:
        certificate = b""

    requested = build_client_metadata(
        declaration,
        client_urls=client_urls,
        provider_metadata=members,
        id_token_alg=algs[0],
        certificate=certificate,
    )
    if udap is None:
        request = build_registration_request(
            endpoint, metadata=requested, initial_access_token=initial_access_token
        )
    else:
        requested = build_udap_metadata(requested, information=udap)
        freshness = AssertionFreshness(now=clock(), jti=randomness.token_b64url(32))
        request = build_udap_registration_request(
            endpoint, metadata=requested, declaration=declaration, freshness=freshness
        )
    registered = process_registration_response(
        transport.send(request, timeout_seconds=TIMEOUT_SECONDS)
    )
    return RegistrationResult(
        members=registered, findings=tuple(_compare_registration(requested, registered))
    )


def _compare_registration(
    requested: Mapping[str, Any], registered: Mapping[str, Any]
) -> Iterator[ProviderFinding]:
    differences = compare_registration(requested, registered)
    level_by_name: dict[str, FindingLevel] = {}
    for difference in differences:
        level_by_name[difference.name] = difference.level
    for name, value in requested.items():
        if level := level_by_name.get(name):
            text = f"{name}: requested {value}, registered {registered.get(name, 'nothing')}"
            remedy = "Ask the provider to change it, or declare what it has registered."
            code = "registered_otherwise"
        else:
            level = "ok"
            text = f"{name}: {value}"
            code = ""
            remedy = ""
        text = sanitize_text(text)
        yield ProviderFinding(check="registered", level=level, code=code, text=text, remedy=remedy)
    expires_at = registered.get("client_secret_expires_at")
    if (
        type(expires_at) is int
        and 0 < expires_at < _MAX_EXPIRY_TIMESTAMP
        and "client_secret" in registered
    ):
        text = f"client_secret: until {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M} UTC"
        remedy = "Renew it before that, at the client's registration_client_uri."
        yield ProviderFinding(
            check="registered", level="warning", code="secret_expires", text=text, remedy=remedy
        )
