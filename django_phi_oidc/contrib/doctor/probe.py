"""Probe a live provider with all requests that need no sign-in."""

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from ..._internal import randomness
from ...audit.events import Action
from ...audit.models import AuditEvent
from ...audit.search import EventFilters, RowUnreadable, list_events
from ...config.claims import ClaimDeclaration
from ...config.providers import ProviderDeclaration
from ...errors import AuditUnavailable, Code, SignInRefused, TransportError
from ...http.connection_pool import translate_error
from ...http.http_transport import create_ssl_context
from ...http.transport import Transport, TransportRequest, TransportResponse
from ...oidc.client_auth import AssertionFreshness
from ...oidc.metadata import (
    MTLS_ENDPOINTS,
    ProviderMetadata,
    build_metadata_request,
    get_metadata_issuer,
    merge_metadata,
    process_metadata_response,
)
from ...oidc.revocation import build_revocation_request
from ...provider.metadata_documents import (
    fetch_keys,
    fetch_oauth_members,
    find_metadata_source,
    list_members_needed_by_apps,
)
from ...provider.mutual_tls import load_client_certificate
from ..common.provider_findings import (
    MetadataDiagnoser,
    ProviderFinding,
    diagnose_request_error,
    metadata_diagnosers,
)
from . import diagnostics
from .assurance_diagnostics import check_assurance
from .certificate_diagnostics import check_client_certificates
from .client_probe import PROOF_ERRORS, ClientProbe, probe_client
from .diagnostics import TLSPeer
from .recipe_diagnostics import build_federation_finding, check_known_provider
from .security_profiles import check_fapi2

TIMEOUT_SECONDS = 10.0
"""For each response."""
ENTITY_STATEMENT = "application/entity-statement+jwt"
ALERT_PERIOD = timedelta(days=30)
_MAX_EVENTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """What the checks need besides the declaration of the provider."""

    claims: Mapping[str, ClaimDeclaration]
    is_only_provider: bool
    """No other provider is declared."""
    callback_url: str = ""
    """The redirect URI of the portal; empty: the registration of the client is not checked."""


def probe_provider(
    declaration: ProviderDeclaration,
    context: ProbeContext,
    *,
    transport: Transport,
    clock: Callable[[], datetime],
) -> Iterator[ProviderFinding]:
    """Yield the findings in the order of the requests. Checks that depend on a failed request are
    left out.

    A random token is sent to the revocation endpoint, which shows whether it knows the client; with
    a callback URL, `client_probe` sends further requests. Nothing is changed.
    """
    for diagnoser in metadata_diagnosers:
        if diagnoser.is_declared(declaration):
            yield from _probe_source(
                diagnoser, declaration, context, transport=transport, clock=clock
            )
            return
    requested_at = clock()
    try:
        response = transport.send(
            build_metadata_request(declaration), timeout_seconds=TIMEOUT_SECONDS
        )
    except TransportError as error:
        yield diagnose_request_error("discovery", error)
        return
    received_at = clock()
    discovery = diagnostics.check_discovery(response, url=declaration.metadata_url)
    yield discovery
    oauth_members = fetch_oauth_members(
        response, declaration=declaration, transport=transport, timeout_seconds=TIMEOUT_SECONDS
    )
    members = diagnostics.find_metadata_members(response)
    if members is not None:
        members = merge_metadata(
            members, oauth_members=oauth_members or {}, declaration=declaration
        )
    yield from _check_tls(declaration, members or {}, now=received_at)
    yield diagnostics.check_clock(
        response.headers,
        requested_at=requested_at,
        received_at=received_at,
        leeway=declaration.leeway,
    )
    if members is None:
        yield from check_known_provider({"issuer": declaration.issuer}, declaration=declaration)
        # An outage says nothing about federations.
        if discovery.code == Code.METADATA_INVALID:
            yield from _find_entity_configuration(declaration, transport=transport)
        return
    yield from _check_metadata(declaration, context, members)
    yield from _check_keys(declaration, members, transport=transport)
    metadata = _find_usable_metadata(declaration, response, oauth_members)
    yield from _check_client(declaration, context, metadata, transport=transport, clock=clock)


def _probe_source(
    diagnoser: MetadataDiagnoser,
    declaration: ProviderDeclaration,
    context: ProbeContext,
    *,
    transport: Transport,
    clock: Callable[[], datetime],
) -> Iterator[ProviderFinding]:
    """Yield the findings about a provider whose metadata come from a source of another app."""
    now = clock()
    diagnosis = diagnoser.diagnose(
        declaration, transport=transport, timeout_seconds=TIMEOUT_SECONDS, now=now
    )
    yield from diagnosis.findings
    if diagnosis.members is None or diagnosis.parse_metadata is None:
        return
    yield from _check_tls(declaration, diagnosis.members, now=now)
    yield from _check_metadata(declaration, context, diagnosis.members)
    try:
        metadata = diagnosis.parse_metadata()
        keys, _ = fetch_keys(
            metadata,
            declaration=declaration,
            transport=transport,
            timeout_seconds=TIMEOUT_SECONDS,
            now=now,
        )
    except SignInRefused as error:
        yield diagnose_request_error("keys", error)
        return
    algs = diagnostics.list_usable_algs(diagnosis.members, declaration.id_token_signed_response_alg)
    yield from diagnostics.check_key_set(keys, algs=algs)
    yield from _check_client(declaration, context, metadata, transport=transport, clock=clock)


def _check_client(
    declaration: ProviderDeclaration,
    context: ProbeContext,
    metadata: ProviderMetadata | None,
    *,
    transport: Transport,
    clock: Callable[[], datetime],
) -> Iterator[ProviderFinding]:
    now = clock()
    yield from check_client_certificates(declaration, now=now)
    if metadata is not None:
        yield from _check_client_is_known(declaration, metadata, transport=transport, now=now)
        if context.callback_url:
            yield from probe_client(
                ClientProbe(
                    declaration=declaration,
                    metadata=metadata,
                    callback_url=context.callback_url,
                    claims=context.claims,
                    transport=transport,
                    clock=clock,
                )
            )
    yield from _check_recent_events(declaration, now=now)


def _check_metadata(
    declaration: ProviderDeclaration, context: ProbeContext, members: Mapping[str, Any]
) -> Iterator[ProviderFinding]:
    yield diagnostics.check_issuer(members, issuer=get_metadata_issuer(declaration))
    yield from diagnostics.check_metadata_issuer(declaration)
    yield from diagnostics.check_members(
        members,
        allow_loopback_http=declaration.allow_loopback_http,
        is_keys_url_optional=find_metadata_source(declaration) is not None,
    )
    yield diagnostics.check_algorithms(members, allowed=declaration.id_token_signed_response_alg)
    yield from diagnostics.check_encryption(members, declaration=declaration)
    yield diagnostics.check_pairwise(members, declaration=declaration)
    yield diagnostics.check_pkce(members)
    yield diagnostics.check_par(members, declaration=declaration)
    yield from diagnostics.check_signed_requests(members, declaration=declaration)
    yield from diagnostics.check_proof_of_possession(members, declaration=declaration)
    yield from check_fapi2(members, declaration=declaration)
    yield diagnostics.check_client_authentication(members, declaration=declaration)
    yield diagnostics.check_revocation(members, declaration=declaration)
    if "introspection_endpoint" in list_members_needed_by_apps(declaration):
        yield diagnostics.check_introspection(members)
    yield from diagnostics.check_logout(members, declaration=declaration)
    yield from check_known_provider(members, declaration=declaration)
    yield diagnostics.check_response_issuer(members, is_only_provider=context.is_only_provider)
    yield diagnostics.check_requested_claims(
        members, declaration=declaration, claims=context.claims
    )
    yield check_assurance(members, declaration=declaration)
    yield from diagnostics.check_resource(declaration, wants_claims=bool(context.claims))
    yield from diagnostics.check_reauthentication(members, declaration=declaration)


def _find_entity_configuration(
    declaration: ProviderDeclaration, *, transport: Transport
) -> Iterator[ProviderFinding]:
    """Report a provider that has an entity configuration in place of metadata.

    Spec: OpenID Federation 1.0, 9 (the document is a JWT, which is not read).
    """
    url = f"{declaration.issuer.removesuffix('/')}/.well-known/openid-federation"
    if not diagnostics.is_allowed_url(url, declaration.allow_loopback_http):
        return
    try:
        response = transport.send(
            TransportRequest(method="GET", url=url, headers={"Accept": ENTITY_STATEMENT}),
            timeout_seconds=TIMEOUT_SECONDS,
        )
    except TransportError:
        return
    if response.status == 200 and response.headers.get("content-type", "").startswith(
        ENTITY_STATEMENT
    ):
        text = "it is a member of a federation: it has an entity configuration"
        yield build_federation_finding(text, level="warning")


def _check_tls(
    declaration: ProviderDeclaration, members: Mapping[str, Any], *, now: datetime
) -> Iterator[ProviderFinding]:
    """Check each host of the provider once."""
    urls = [
        declaration.issuer,
        *(members[name] for name in diagnostics.list_endpoint_names(members)),
    ]
    # A host of these alone may refuse connections without a certificate.
    names: tuple[str, ...]
    if declaration.client_certificate:
        names = MTLS_ENDPOINTS
    else:
        names = ()

    mtls_urls = set()
    for name in diagnostics.list_endpoint_names(members):
        if name in names:
            mtls_urls.add(members[name])
    # Of several URLs of a host, the first one is requested.
    url_by_host = {}
    for url in reversed(urls):
        if diagnostics.is_allowed_url(url, declaration.allow_loopback_http):
            url_by_host[urlsplit(url).netloc] = url
    for host, url in url_by_host.items():
        try:
            if url.startswith("https:"):
                version = "TLS"
            else:
                version = ""

            expires_at = None
            if version and not declaration.proxy:
                version, expires_at = _get_tls_version_and_expiry(
                    url, declaration=declaration, presents_certificate=url in mtls_urls
                )
            peer = TLSPeer(host=host, tls_version=version, certificate_expires_at=expires_at)
            yield diagnostics.check_peer(peer, now=now)
        except TransportError as error:
            yield diagnose_request_error("tls", error)


def _get_tls_version_and_expiry(
    url: str, *, declaration: ProviderDeclaration, presents_certificate: bool
) -> tuple[str, datetime]:
    """Return the TLS version and the expiry of the certificate, which is verified as for every
    request.

    Each step has TIMEOUT_SECONDS. Requires: an https URL with a host, and no proxy.
    Raises: TransportTLS, TransportTimeout, TransportUnreachable.
    """
    parts = urlsplit(url)
    context = create_ssl_context(declaration.ca_bundle)
    if presents_certificate:
        load_client_certificate(context, declaration)
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
    if not isinstance(url, str) or not diagnostics.is_allowed_url(
        url, declaration.allow_loopback_http
    ):
        return
    request = TransportRequest(
        method="GET", url=url, headers={"Accept": "application/jwk-set+json, application/json"}
    )
    try:
        response = transport.send(request, timeout_seconds=TIMEOUT_SECONDS)
    except TransportError as error:
        yield diagnose_request_error("keys", error)
        return
    algs = diagnostics.list_usable_algs(members, declaration.id_token_signed_response_alg)
    yield from diagnostics.check_keys(response, algs=algs)


def _find_usable_metadata(
    declaration: ProviderDeclaration,
    response: TransportResponse,
    oauth_members: Mapping[str, Any] | None,
) -> ProviderMetadata | None:
    """Return the metadata; None if a sign-in would be refused because of it."""
    try:
        return process_metadata_response(
            response, declaration=declaration, oauth_members=oauth_members
        )
    except SignInRefused:
        return None


def _check_client_is_known(
    declaration: ProviderDeclaration,
    metadata: ProviderMetadata,
    *,
    transport: Transport,
    now: datetime,
) -> Iterator[ProviderFinding]:
    """Send no request if there is no revocation endpoint."""
    try:
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
        yield diagnostics.check_client_is_known(
            transport.send(request, timeout_seconds=TIMEOUT_SECONDS)
        )
    except TransportError as error:
        yield diagnose_request_error("client", error)


def _check_recent_events(
    declaration: ProviderDeclaration, *, now: datetime
) -> Iterator[ProviderFinding]:
    """Report what only sign-ins show, as far as the audit log has it."""
    alerts = _count_recent(
        declaration, Action.ALERT_RAISED, lambda row: Code.ACCESS_TOKEN_LIFETIME in row.detail, now
    )
    yield diagnostics.check_access_token_lifetime(
        alerts, limit=declaration.max_access_token_lifetime
    )
    refusals = _count_recent(declaration, Action.LOGIN_REFUSED, _is_proof_required, now)
    yield from diagnostics.check_token_type(refusals or 0)


def _is_proof_required(row: AuditEvent) -> bool:
    return row.reason == Code.TOKEN_TYPE_UNSUPPORTED or any(
        error in row.detail for error in PROOF_ERRORS
    )


def _count_recent(
    declaration: ProviderDeclaration,
    action: Action,
    is_counted: Callable[[AuditEvent], bool],
    now: datetime,
) -> int | None:
    """Return the number of these events of the provider; None if the audit log cannot be read."""
    filters = EventFilters(action=action, since=now - ALERT_PERIOD)
    try:
        rows = list_events(filters, page_size=_MAX_EVENTS).rows
    except (AuditUnavailable, RowUnreadable):
        return None
    return sum(row.provider == declaration.name and is_counted(row) for row in rows)
