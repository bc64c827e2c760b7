"""Verification of JWT access tokens for an API of the portal.

Spec: RFC 9068; RFC 6749 3.3 (scope). A UserInfo response is no proof of validity, because it omits
the audience.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ...config.providers import ProviderDeclaration
from ...errors import Code, IDTokenError
from ...oidc import id_token
from ...oidc.id_token import Claims
from ...oidc.jose import JWS, parse_compact_jws
from ...oidc.jwks import KeySet
from ...oidc.token import HEART_MAX_ACCESS_TOKEN_LIFETIME
from ..common.accepted_tokens import ClientTokensDeclaration, is_scope_token
from ..common.api_errors import AccessTokenInvalid
from .confirmation import Confirmation, parse_confirmation, validate_confirmation
from .declaration import APIDeclaration

ACCESS_TOKEN_TYP = "at+jwt"
BEARER_TOKEN_TYPE = "bearer"
"""In lower case, as a scheme of Authorization. Spec: RFC 9110 11.1."""


class ResourceServer(NamedTuple):
    """An API of the portal, and the provider whose access tokens it accepts."""

    api: APIDeclaration | ClientTokensDeclaration
    provider: ProviderDeclaration


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A verified access token: the person, the client and the scopes. Does not contain the token
    itself.
    """

    provider: str
    """The declared name."""
    issuer: str
    sub: str = field(repr=False)
    client_id: str
    scopes: frozenset[str]
    expires_at: datetime
    acr: str = ""
    auth_time: datetime | None = None
    """When the person authenticated, if known."""
    confirmation: Confirmation = ()
    """The keys that the token is bound to: method (`x5t#S256` or `jkt`) and thumbprint. Empty for a
    bearer token.
    """


def find_request_token(request: object) -> AccessToken | None:
    """Return the verified access token that authenticated a request; None without one.

    Django REST framework stores what its authentication class returned as `auth`. Other classes
    store other objects there, which prove nothing here.
    """
    token = getattr(request, "auth", None)
    if isinstance(token, AccessToken):
        return token
    return None


def get_resource_server(token: str, resource_servers: Iterable[ResourceServer]) -> ResourceServer:
    """Return the API and the provider that must verify the token, according to its claims. NOTHING
    is verified.

    An opaque token contains no issuer. It is only accepted if exactly one provider does
    introspection, because a provider must not receive tokens of another one. Raises:
    AccessTokenInvalid.
    """
    servers = list(resource_servers)
    claims = _find_claims(token)
    if claims is None:
        introspecting = []
        for server in servers:
            if server.api.method == "introspection":
                introspecting.append(server)
        if len(introspecting) != 1:
            raise AccessTokenInvalid("token_malformed")
        return introspecting[0]
    of_issuer = []
    for server in servers:
        if server.provider.issuer == claims.get("iss"):
            of_issuer.append(server)
    if not of_issuer:
        raise AccessTokenInvalid("iss_invalid")
    # The audience distinguishes several clients of one issuer.
    audiences = id_token.get_audiences(claims)
    for server in of_issuer:
        if server.api.audience in audiences:
            return server
    return of_issuer[0]


def verify_access_token(
    token: str,
    *,
    keys: KeySet,
    resource_server: ResourceServer,
    proofs: Mapping[str, str],
    now: datetime,
) -> AccessToken:
    """Return a JWT access token that the declared issuer signed for this API.

    proofs: as of validate_confirmation.

    Order, as in verify_id_token: structure, alg, signature, then typ and claims. Times have the
    declared leeway. A lifetime over max_access_token_lifetime is refused, because a JWT cannot be
    ended earlier. NOT checked: whether it was revoked, and whether jti was used before.
    Raises: AccessTokenInvalid; what keys raises (KeyNotFound, TransportError, MetadataError).
    Spec: RFC 9068 2, 4; RFC 8725 3.
    """
    declaration = resource_server.provider
    try:
        jws = parse_compact_jws(token)
        id_token.validate_alg(jws, allowed=declaration.id_token_signed_response_alg)
        id_token.validate_signature(jws, keys=keys)
        validate_typ(jws)
        claims = jws.payload
        id_token.validate_iss(claims, issuer=declaration.issuer)
        access_token = parse_access_token_claims(claims, resource_server=resource_server, now=now)
        validate_lifetime(claims, declaration=declaration, now=now)
    except IDTokenError as error:
        raise AccessTokenInvalid(error.code) from error
    if not _is_visible_ascii(claims.get("jti")):
        raise AccessTokenInvalid("jti_invalid")
    validate_confirmation(access_token.confirmation, proofs=proofs)
    return access_token


def parse_access_token_claims(
    claims: Claims, *, resource_server: ResourceServer, now: datetime
) -> AccessToken:
    """Return the access token of authentic claims that are valid now for this API.

    NOT checked: that the presenter has the key that the token is bound to; validate_confirmation
    does that.
    Raises: AccessTokenInvalid, IDTokenError. Spec: RFC 9068 2.2; RFC 7662 2.2; RFC 8705 3.1, 3.2,
    RFC 9449 6.1, 6.2 (cnf); FAPI 2.0 Security Profile 5.3.4.
    """
    declaration = resource_server.provider
    validate_audience(claims, audience=resource_server.api.audience)
    id_token.validate_exp(claims, now=now, leeway=declaration.leeway)
    id_token.validate_nbf(claims, now=now, leeway=declaration.leeway)
    id_token.validate_sub(claims)
    validate_client(claims, api=resource_server.api)
    confirmation = parse_confirmation(claims)
    if declaration.profile == "fapi2" and not confirmation:
        raise AccessTokenInvalid("cnf_missing")
    scopes = parse_scope(claims.get("scope", ""))
    if scopes is None:
        raise AccessTokenInvalid("scope_invalid")
    acr = claims.get("acr")
    return AccessToken(
        provider=declaration.name,
        issuer=declaration.issuer,
        sub=claims["sub"],
        client_id=claims["client_id"],
        scopes=scopes,
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        acr=acr if isinstance(acr, str) and len(acr) <= 255 else "",
        auth_time=_parse_auth_time(claims.get("auth_time"), now=now, leeway=declaration.leeway),
        confirmation=confirmation,
    )


def parse_scope(value: object) -> frozenset[str] | None:
    """Return the scopes of a space-separated list; None if it is malformed. Spec: RFC 6749 3.3."""
    if value == "":
        return frozenset()

    if isinstance(value, str):
        scopes = value.split(" ")
    else:
        scopes = [""]

    if all(map(is_scope_token, scopes)):
        return frozenset(scopes)
    return None


def validate_typ(jws: JWS) -> None:
    """`typ_invalid`: typ is the media type of access tokens, which ID Tokens do not have. Spec: RFC
    9068 2.1, 4.
    """
    if jws.media_type != ACCESS_TOKEN_TYP:
        raise AccessTokenInvalid("typ_invalid")


def validate_audience(claims: Claims, *, audience: str) -> None:
    """`aud_invalid`: aud contains this API. Other audiences are allowed. Spec: RFC 9068 4."""
    if audience not in id_token.get_audiences(claims):
        raise IDTokenError(Code.AUD_INVALID)


def validate_client(claims: Claims, *, api: APIDeclaration | ClientTokensDeclaration) -> None:
    """`client_id_invalid`, `client_not_allowed`, `client_for_itself`, `client_for_person`: a client
    that is allowed.

    It acts for a person, or at an API for clients for itself. Without a person, sub is the
    client_id, which the registrant may be able to choose, or what is declared. Requires: a
    validated sub. Spec: RFC 9068 2.2, 5.
    """
    client_id = claims.get("client_id")
    clients = api.clients
    if not _is_visible_ascii(client_id):
        raise AccessTokenInvalid("client_id_invalid")
    if clients is not None and client_id not in clients:
        raise AccessTokenInvalid("client_not_allowed")
    if isinstance(api, ClientTokensDeclaration):
        if claims["sub"] != api.get_sub(str(client_id)):
            raise AccessTokenInvalid("client_for_person")
    elif client_id == claims["sub"]:
        raise AccessTokenInvalid("client_for_itself")


def validate_lifetime(claims: Claims, *, declaration: ProviderDeclaration, now: datetime) -> None:
    """`iat_invalid`, `access_token_lifetime`: iat is not in the future, and the lifetime is within
    the limit.

    Requires: a validated exp. Spec: RFC 9068 2.2; RFC 7519 4.1.6.
    """
    issued_at = id_token.parse_numeric_date(claims.get("iat"))
    if issued_at is None or issued_at > now + declaration.leeway:
        raise IDTokenError(Code.IAT_INVALID)
    limit = declaration.max_access_token_lifetime
    if declaration.profile == "heart":
        limit = min(limit, HEART_MAX_ACCESS_TOKEN_LIFETIME)
    if datetime.fromtimestamp(claims["exp"], UTC) - issued_at > limit:
        raise AccessTokenInvalid("access_token_lifetime")


def _find_claims(token: str) -> Claims | None:
    try:
        return parse_compact_jws(token).payload
    except IDTokenError:
        return None


def _parse_auth_time(value: object, *, now: datetime, leeway: timedelta) -> datetime | None:
    """Return None for a time in the future, beyond the leeway."""
    if id_token.is_zero(value):
        auth_time = None
    else:
        auth_time = id_token.parse_numeric_date(value)
    if auth_time is None or auth_time > now + leeway:
        return None
    return auth_time


def _is_visible_ascii(value: object) -> bool:
    return (
        isinstance(value, str) and 0 < len(value) <= 255 and value.isascii() and value.isprintable()
    )
