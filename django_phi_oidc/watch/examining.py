"""A look at a live OP: everything that can be asked without anybody signing in."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from .. import entropy
from ..audit.browsing import Filters, RowUnreadable, page
from ..audit.events import Action
from ..declarations import ClaimDeclaration, ProviderDeclaration
from ..errors import AuditUnavailable, SignInRefused, TransportError
from ..oidc.client_auth import Freshness
from ..oidc.metadata import build_metadata_request, judge_metadata
from ..oidc.revocation import build_revocation_request
from ..oidc.transport import Request, Response, Transport
from ..provider.handshaking import shake_hands
from . import doctor
from .doctor import Finding, Peer

SECONDS = 10.0
"""For each answer."""
LATELY = timedelta(days=30)
_MOST_ALERTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else counts in judging an OP."""

    claims: Mapping[str, ClaimDeclaration]
    is_alone: bool
    """No other provider is declared."""
    introspecting: Collection[str] = ()
    """The names of the providers that are asked about access tokens."""


def examine(
    declaration: ProviderDeclaration,
    surroundings: Surroundings,
    *,
    transport: Transport,
    clock: Callable[[], datetime],
) -> Iterator[Finding]:
    """Yield what is found, in the order in which it is asked; what depends on an answer that did not come is left out.

    One token that never was is sent to be revoked, which shows whether the OP knows this client. Nothing is changed.
    """
    asked_at = clock()
    try:
        answer = transport.send(build_metadata_request(issuer=declaration.issuer), deadline=SECONDS)
    except TransportError as error:
        yield doctor.check_reached("discovery", error)
        return
    answered_at = clock()
    yield doctor.check_discovery(answer)
    members = doctor.read_members(answer)
    yield from _handshakes(declaration, members or {}, now=answered_at)
    yield doctor.check_clock(answer.headers, asked_at=asked_at, answered_at=answered_at, leeway=declaration.leeway)
    if members is None:
        return
    yield from _said(declaration, surroundings, members)
    yield from _keys(declaration, members, transport=transport)
    yield from _acquaintance(declaration, answer, transport=transport, now=answered_at)
    alerts = _alerts(declaration.name, now=answered_at)
    yield doctor.check_lifetimes(alerts, limit=declaration.max_access_token_lifetime)


def _said(
    declaration: ProviderDeclaration, surroundings: Surroundings, members: Mapping[str, Any]
) -> Iterator[Finding]:
    """What the metadata alone tells."""
    yield doctor.check_issuer(members, issuer=declaration.issuer)
    yield from doctor.check_members(members, allow_loopback_http=declaration.allow_loopback_http)
    yield doctor.check_algorithms(members, allowed=declaration.id_token_signed_response_alg)
    yield doctor.check_pairwise(members, declaration=declaration)
    yield doctor.check_pkce(members)
    yield doctor.check_pushing(members, declaration=declaration)
    yield doctor.check_client_authentication(members, declaration=declaration)
    yield doctor.check_revocation(members, declaration=declaration)
    if declaration.name in surroundings.introspecting:
        yield doctor.check_introspection(members)
    yield from doctor.check_logout(members)
    yield doctor.check_response_issuer(members, is_alone=surroundings.is_alone)
    yield doctor.check_asked(members, declaration=declaration, claims=surroundings.claims)
    yield doctor.check_assurance(members, wanted=declaration.acr_values)


def _handshakes(declaration: ProviderDeclaration, members: Mapping[str, Any], *, now: datetime) -> Iterator[Finding]:
    """One with each host that the OP has."""
    urls = [declaration.issuer, *(members[name] for name in doctor.endpoints(members))]
    safe = [url for url in urls if doctor.is_https(url, declaration.allow_loopback_http)]
    for url in {urlsplit(url).netloc: url for url in reversed(safe)}.values():
        host = urlsplit(url).netloc
        try:
            yield doctor.check_peer(_peer(host, url, declaration), now=now)
        except TransportError as error:
            yield doctor.check_reached("tls", error)


def _peer(host: str, url: str, declaration: ProviderDeclaration) -> Peer:
    if not url.startswith("https:"):
        return Peer(host=host)
    if declaration.proxy:
        return Peer(host=host, version="TLS")
    version, until = shake_hands(url, declaration=declaration, seconds=SECONDS)
    return Peer(host=host, version=version, until=until)


def _keys(declaration: ProviderDeclaration, members: Mapping[str, Any], *, transport: Transport) -> Iterator[Finding]:
    url = members.get("jwks_uri")
    if not isinstance(url, str) or not doctor.is_https(url, declaration.allow_loopback_http):
        return
    request = Request(method="GET", url=url, headers={"Accept": "application/jwk-set+json, application/json"})
    try:
        answer = transport.send(request, deadline=SECONDS)
    except TransportError as error:
        yield doctor.check_reached("keys", error)
        return
    yield from doctor.check_keys(answer, algs=doctor.usable_algs(members, declaration.id_token_signed_response_alg))


def _acquaintance(
    declaration: ProviderDeclaration, answer: Response, *, transport: Transport, now: datetime
) -> Iterator[Finding]:
    """Whether the OP knows us. It is asked nothing where a sign-in would be refused for its metadata."""
    try:
        metadata = judge_metadata(answer, declaration=declaration)
        request = build_revocation_request(
            metadata=metadata,
            declaration=declaration,
            token=entropy.token_b64url(32),
            token_type_hint="access_token",
            freshness=Freshness(now=now, jti=entropy.token_b64url(32)),
        )
    except SignInRefused:
        return
    try:
        yield doctor.check_answer(transport.send(request, deadline=SECONDS))
    except TransportError as error:
        yield doctor.check_reached("client", error)


def _alerts(provider: str, *, now: datetime) -> int | None:
    """Return how many alerts of long-lived access tokens the trail has of late; None where it can't be read."""
    try:
        found = page(Filters(action=Action.ALERT_RAISED, since=now - LATELY), size=_MOST_ALERTS).rows
    except (AuditUnavailable, RowUnreadable):
        return None
    return sum(row.provider == provider and '"access_token_lifetime"' in row.detail for row in found)
