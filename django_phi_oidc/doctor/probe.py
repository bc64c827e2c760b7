"""Probe a live provider with all requests that need no sign-in."""

import socket
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from .._internal import randomness
from ..audit.events import Action
from ..audit.search import EventFilters, RowUnreadable, list_events
from ..config.claims import ClaimDeclaration
from ..config.providers import ProviderDeclaration
from ..errors import AuditUnavailable, SignInRefused, TransportError
from ..oidc.client_auth import AssertionFreshness
from ..oidc.metadata import build_metadata_request, merge_metadata, process_metadata_response
from ..oidc.revocation import build_revocation_request
from ..oidc.transport import Transport, TransportRequest, TransportResponse
from ..provider.connection_pool import translate_error
from ..provider.http_transport import create_ssl_context
from ..provider.metadata_documents import fetch_oauth_members
from . import diagnostics
from .diagnostics import ProviderFinding, TLSPeer

TIMEOUT_SECONDS = 10.0
"""For each response."""
ALERT_PERIOD = timedelta(days=30)
_MAX_ALERTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """What the checks need besides the declaration of the provider."""

    claims: Mapping[str, ClaimDeclaration]
    is_only_provider: bool
    """No other provider is declared."""
    introspection_provider_names: Collection[str] = ()
    """Providers whose introspection endpoint is used."""


def probe_provider(
    declaration: ProviderDeclaration, context: ProbeContext, *, transport: Transport, clock: Callable[[], datetime]
) -> Iterator[ProviderFinding]:
    """Yield the findings in the order of the requests. Checks that depend on a failed request are left out.

    A random token is sent to the revocation endpoint, which shows whether it knows the client. Nothing is changed.
    """
    requested_at = clock()
    try:
        response = transport.send(build_metadata_request(issuer=declaration.issuer), timeout_seconds=TIMEOUT_SECONDS)
    except TransportError as error:
        yield diagnostics.diagnose_request_error("discovery", error)
        return
    received_at = clock()
    yield diagnostics.check_discovery(response)
    oauth_members = fetch_oauth_members(
        response, declaration=declaration, transport=transport, timeout_seconds=TIMEOUT_SECONDS
    )
    members = diagnostics.find_metadata_members(response)
    if members is not None:
        members = merge_metadata(members, oauth_members=oauth_members or {}, declaration=declaration)
    yield from _check_tls(declaration, members or {}, now=received_at)
    times = {"requested_at": requested_at, "received_at": received_at}
    yield diagnostics.check_clock(response.headers, **times, leeway=declaration.leeway)
    if members is None:
        return
    yield from _check_metadata(declaration, context, members)
    yield from _check_keys(declaration, members, transport=transport)
    yield from _check_client_is_known(declaration, response, oauth_members, transport=transport, now=received_at)
    alerts = _count_lifetime_alerts(declaration.name, now=received_at)
    yield diagnostics.check_access_token_lifetime(alerts, limit=declaration.max_access_token_lifetime)


def _check_metadata(
    declaration: ProviderDeclaration, context: ProbeContext, members: Mapping[str, Any]
) -> Iterator[ProviderFinding]:
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
    yield from diagnostics.check_logout(members, declaration=declaration)
    yield from diagnostics.check_logout_sub(members, declaration=declaration)
    yield diagnostics.check_response_issuer(members, is_only_provider=context.is_only_provider)
    yield diagnostics.check_requested_claims(members, declaration=declaration, claims=context.claims)
    yield diagnostics.check_acr_values(members, requested=declaration.acr_values)
    yield from diagnostics.check_reauthentication(members, declaration=declaration)


def _check_tls(
    declaration: ProviderDeclaration, members: Mapping[str, Any], *, now: datetime
) -> Iterator[ProviderFinding]:
    """Check each host of the provider once."""
    urls = [declaration.issuer, *(members[name] for name in diagnostics.list_endpoint_names(members))]
    allowed_urls = [url for url in urls if diagnostics.is_allowed_url(url, declaration.allow_loopback_http)]
    for url in {urlsplit(url).netloc: url for url in reversed(allowed_urls)}.values():
        host = urlsplit(url).netloc
        try:
            version, expires_at = "TLS" if url.startswith("https:") else "", None
            if version and not declaration.proxy:
                version, expires_at = _get_tls_version_and_expiry(url, declaration=declaration)
            peer = TLSPeer(host=host, tls_version=version, certificate_expires_at=expires_at)
            yield diagnostics.check_peer(peer, now=now)
        except TransportError as error:
            yield diagnostics.diagnose_request_error("tls", error)


def _get_tls_version_and_expiry(url: str, *, declaration: ProviderDeclaration) -> tuple[str, datetime]:
    """Return the TLS version and the expiry of the certificate, which is verified as for every request.

    Each step has TIMEOUT_SECONDS. Requires: an https URL with a host, and no proxy.
    Raises: TransportTLS, TransportTimeout, TransportUnreachable.
    """
    parts, context = urlsplit(url), create_ssl_context(declaration.ca_bundle)
    address = parts.hostname or "", parts.port or 443
    try:
        with (
            socket.create_connection(address, timeout=TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=address[0]) as tls,
        ):
            expires_at = ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"]))
            return tls.version() or "", datetime.fromtimestamp(expires_at, UTC)
    except (OSError, UnicodeError) as error:
        raise translate_error(error, is_expired=False) from None


def _check_keys(
    declaration: ProviderDeclaration, members: Mapping[str, Any], *, transport: Transport
) -> Iterator[ProviderFinding]:
    url = members.get("jwks_uri")
    if not isinstance(url, str) or not diagnostics.is_allowed_url(url, declaration.allow_loopback_http):
        return
    request = TransportRequest(method="GET", url=url, headers={"Accept": "application/jwk-set+json, application/json"})
    try:
        response = transport.send(request, timeout_seconds=TIMEOUT_SECONDS)
    except TransportError as error:
        yield diagnostics.diagnose_request_error("keys", error)
        return
    algs = diagnostics.list_usable_algs(members, declaration.id_token_signed_response_alg)
    yield from diagnostics.check_keys(response, algs=algs)


def _check_client_is_known(
    declaration: ProviderDeclaration,
    metadata_response: TransportResponse,
    oauth_members: Mapping[str, Any] | None,
    *,
    transport: Transport,
    now: datetime,
) -> Iterator[ProviderFinding]:
    """Send no request if a sign-in would be refused because of the metadata."""
    try:
        metadata = process_metadata_response(metadata_response, declaration=declaration, oauth_members=oauth_members)
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
        yield diagnostics.check_client_is_known(transport.send(request, timeout_seconds=TIMEOUT_SECONDS))
    except TransportError as error:
        yield diagnostics.diagnose_request_error("client", error)


def _count_lifetime_alerts(provider: str, *, now: datetime) -> int | None:
    """Return the number of recent alerts about access token lifetimes; None if the audit log cannot be read."""
    filters = EventFilters(action=Action.ALERT_RAISED, since=now - ALERT_PERIOD)
    try:
        rows = list_events(filters, page_size=_MAX_ALERTS).rows
    except (AuditUnavailable, RowUnreadable):
        return None
    return sum(row.provider == provider and '"access_token_lifetime"' in row.detail for row in rows)
