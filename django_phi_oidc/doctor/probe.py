"""A look at a live OP: everything that can be asked without anybody signing in."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from .._internal import randomness
from ..audit.events import Action
from ..audit.search import EventFilters, RowUnreadable, list_events
from ..config.claims import ClaimDeclaration
from ..config.providers import ProviderDeclaration
from ..errors import AuditUnavailable, SignInRefused, TransportError
from ..oidc.client_auth import AssertionFreshness
from ..oidc.metadata import build_metadata_request, process_metadata_response
from ..oidc.revocation import build_revocation_request
from ..oidc.transport import Transport, TransportRequest, TransportResponse
from . import diagnostics
from .diagnostics import ProviderFinding, TLSPeer
from .tls import get_tls_version_and_expiry

TIMEOUT_SECONDS = 10.0
"""For each answer."""
ALERT_PERIOD = timedelta(days=30)
_MAX_ALERTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """What else counts in judging an OP."""

    claims: Mapping[str, ClaimDeclaration]
    is_only_provider: bool
    """No other provider is declared."""
    introspection_provider_names: Collection[str] = ()
    """The names of the providers that are asked about access tokens."""


def probe_provider(
    declaration: ProviderDeclaration,
    context: ProbeContext,
    *,
    transport: Transport,
    clock: Callable[[], datetime],
) -> Iterator[ProviderFinding]:
    """Yield what is found, in the order in which it is asked; what depends on an answer that did not come is left out.

    One token that never was is sent to be revoked, which shows whether the OP knows this client. Nothing is changed.
    """
    asked_at = clock()
    try:
        answer = transport.send(build_metadata_request(issuer=declaration.issuer), deadline=TIMEOUT_SECONDS)
    except TransportError as error:
        yield diagnostics.diagnose_request_error("discovery", error)
        return
    answered_at = clock()
    yield diagnostics.check_discovery(answer)
    members = diagnostics.find_metadata_members(answer)
    yield from _check_tls(declaration, members or {}, now=answered_at)
    yield diagnostics.check_clock(
        answer.headers, requested_at=asked_at, received_at=answered_at, leeway=declaration.leeway
    )
    if members is None:
        return
    yield from _check_metadata(declaration, context, members)
    yield from _check_keys(declaration, members, transport=transport)
    yield from _check_client_is_known(declaration, answer, transport=transport, now=answered_at)
    alerts = _count_lifetime_alerts(declaration.name, now=answered_at)
    yield diagnostics.check_access_token_lifetime(alerts, limit=declaration.max_access_token_lifetime)


def _check_metadata(
    declaration: ProviderDeclaration, context: ProbeContext, members: Mapping[str, Any]
) -> Iterator[ProviderFinding]:
    """What the metadata alone tells."""
    yield diagnostics.check_issuer(members, issuer=declaration.issuer)
    yield from diagnostics.check_members(members, allow_loopback_http=declaration.allow_loopback_http)
    yield diagnostics.check_algorithms(members, allowed=declaration.id_token_signed_response_alg)
    yield diagnostics.check_pairwise(members, declaration=declaration)
    yield diagnostics.check_pkce(members)
    yield diagnostics.check_par(members, declaration=declaration)
    yield diagnostics.check_client_authentication(members, declaration=declaration)
    yield diagnostics.check_revocation(members, declaration=declaration)
    if declaration.name in context.introspection_provider_names:
        yield diagnostics.check_introspection(members)
    yield from diagnostics.check_logout(members)
    yield diagnostics.check_response_issuer(members, is_only_provider=context.is_only_provider)
    yield diagnostics.check_requested_claims(members, declaration=declaration, claims=context.claims)
    yield diagnostics.check_acr_values(members, requested=declaration.acr_values)


def _check_tls(
    declaration: ProviderDeclaration, members: Mapping[str, Any], *, now: datetime
) -> Iterator[ProviderFinding]:
    """One with each host that the OP has."""
    urls = [declaration.issuer, *(members[name] for name in diagnostics.list_endpoint_names(members))]
    safe = [url for url in urls if diagnostics.is_allowed_url(url, declaration.allow_loopback_http)]
    for url in {urlsplit(url).netloc: url for url in reversed(safe)}.values():
        host = urlsplit(url).netloc
        try:
            yield diagnostics.check_peer(_get_tls_peer(host, url, declaration), now=now)
        except TransportError as error:
            yield diagnostics.diagnose_request_error("tls", error)


def _get_tls_peer(host: str, url: str, declaration: ProviderDeclaration) -> TLSPeer:
    if not url.startswith("https:"):
        return TLSPeer(host=host)
    if declaration.proxy:
        return TLSPeer(host=host, tls_version="TLS")
    version, until = get_tls_version_and_expiry(url, declaration=declaration, timeout_seconds=TIMEOUT_SECONDS)
    return TLSPeer(host=host, tls_version=version, certificate_expires_at=until)


def _check_keys(
    declaration: ProviderDeclaration, members: Mapping[str, Any], *, transport: Transport
) -> Iterator[ProviderFinding]:
    url = members.get("jwks_uri")
    if not isinstance(url, str) or not diagnostics.is_allowed_url(url, declaration.allow_loopback_http):
        return
    request = TransportRequest(method="GET", url=url, headers={"Accept": "application/jwk-set+json, application/json"})
    try:
        answer = transport.send(request, deadline=TIMEOUT_SECONDS)
    except TransportError as error:
        yield diagnostics.diagnose_request_error("keys", error)
        return
    yield from diagnostics.check_keys(
        answer, algs=diagnostics.list_usable_algs(members, declaration.id_token_signed_response_alg)
    )


def _check_client_is_known(
    declaration: ProviderDeclaration, metadata_response: TransportResponse, *, transport: Transport, now: datetime
) -> Iterator[ProviderFinding]:
    """Whether the OP knows us. It is asked nothing where a sign-in would be refused for its metadata."""
    try:
        metadata = process_metadata_response(metadata_response, declaration=declaration)
        request = build_revocation_request(
            metadata=metadata,
            declaration=declaration,
            token=randomness.token_b64url(32),
            token_type_hint="access_token",
            freshness=AssertionFreshness(now=now, jti=randomness.token_b64url(32)),
        )
    except SignInRefused:
        return
    try:
        yield diagnostics.check_client_is_known(transport.send(request, deadline=TIMEOUT_SECONDS))
    except TransportError as error:
        yield diagnostics.diagnose_request_error("client", error)


def _count_lifetime_alerts(provider: str, *, now: datetime) -> int | None:
    """Return how many alerts of long-lived access tokens the trail has of late; None where it can't be read."""
    try:
        found = list_events(
            EventFilters(action=Action.ALERT_RAISED, since=now - ALERT_PERIOD), page_size=_MAX_ALERTS
        ).rows
    except (AuditUnavailable, RowUnreadable):
        return None
    return sum(row.provider == provider and '"access_token_lifetime"' in row.detail for row in found)
