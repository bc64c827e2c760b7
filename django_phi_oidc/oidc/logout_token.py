"""R9: whether the OP says that somebody signed out. Spec: OIDC Back-Channel Logout 1.0, 2.4 and 2.6."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ..declarations import ProviderDeclaration
from ..errors import IatInvalid, IDTokenError, LogoutTokenInvalid
from .id_token import (
    MAX_AGE_OF_IAT,
    check_alg_not_allowed,
    check_aud_invalid,
    check_exp_invalid,
    check_iat_invalid,
    check_iss_invalid,
    check_nbf_invalid,
    check_signature_invalid,
    check_sub_invalid,
)
from .jose import JWS, parse_compact_jws
from .jwks import KeySet

EVENT = "http://schemas.openid.net/event/backchannel-logout"
TYP = "logout+jwt"
MAX_AGE_WITHOUT_EXP = timedelta(minutes=2)

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutToken:
    """Who signed out at which OP: a person, wherever they are signed in, or one session of theirs, or both."""

    iss: str
    sub: str = field(repr=False)
    """Empty when the token names a session alone."""
    sid: str = field(repr=False)
    """Empty when the token names a person alone."""
    jti: str = field(repr=False)
    until: datetime
    """After this instant it is refused for its age."""


def addressee(token: str, declared: Iterable[ProviderDeclaration]) -> ProviderDeclaration:
    """Return the provider and client that the token itself names: whose keys have to verify it. NOTHING is verified.

    Raises: LogoutTokenInvalid.
    """
    claims = _parse(token).payload
    rule = "iss_invalid"
    for declaration in declared:
        try:
            _check_addressed(claims, declaration=declaration)
        except IDTokenError as error:
            # Of several clients at one issuer, the audience is what tells.
            rule = error.code if claims.get("iss") == declaration.issuer else rule
        else:
            return declaration
    raise LogoutTokenInvalid(rule)


def verify_logout_token(token: str, *, keys: KeySet, declaration: ProviderDeclaration, now: datetime) -> LogoutToken:
    """Return whom a logout token speaks of that the declared issuer signed for this client just now.

    In the order of verify_id_token, and with its times and leeway. NOT checked: whether jti was seen before.

    Raises: LogoutTokenInvalid; what keys raises (KeyNotFound, TransportError, MetadataInvalid).
    Spec: Back-Channel Logout 2.6; RFC 7519 4.1; RFC 8725 3.
    """
    jws = _parse(token)
    try:
        check_alg_not_allowed(jws, allowed=declaration.id_token_signed_response_alg)
        check_signature_invalid(jws, keys=keys)
        check_typ(jws)
        claims = jws.payload
        _check_addressed(claims, declaration=declaration)
        until = _check_age(claims, declaration=declaration, now=now)
        check_nbf_invalid(claims, now=now, leeway=declaration.leeway)
        if "sub" in claims:
            check_sub_invalid(claims)
    except IDTokenError as error:
        raise LogoutTokenInvalid(error.code) from error
    check_logout(claims)
    return LogoutToken(
        iss=declaration.issuer,
        sub=claims.get("sub", ""),
        sid=claims.get("sid", ""),
        jti=claims["jti"],
        until=until,
    )


def is_logout(claims: Claims) -> bool:
    """Say whether a token of these claims tells of a logout, and is no ID Token. Spec: Back-Channel Logout 2.4, 4."""
    events = claims.get("events")
    return isinstance(events, dict) and EVENT in events


def check_typ(jws: JWS) -> None:
    """`typ_invalid`: typ, if there, is the media type of logout tokens. Spec: RFC 7515 4.1.9, RFC 8725 3.11."""
    typ: str = jws.header.get("typ", TYP)
    if typ.lower().removeprefix("application/") != TYP:
        raise LogoutTokenInvalid("typ_invalid")


def check_logout(claims: Claims) -> None:
    """The logout event, a jti, a sub or a sid, and no nonce, which an ID Token would have. Spec: 2.4, 2.6."""
    if not is_logout(claims) or not isinstance(claims["events"][EVENT], dict):
        raise LogoutTokenInvalid("events_invalid")
    if not _is_text(claims.get("jti")):
        raise LogoutTokenInvalid("jti_invalid")
    if "sid" in claims and not _is_text(claims["sid"]):
        raise LogoutTokenInvalid("sid_invalid")
    if "sub" not in claims and "sid" not in claims:
        raise LogoutTokenInvalid("sub_invalid")
    if "nonce" in claims:
        raise LogoutTokenInvalid("nonce_invalid")


def _parse(token: str) -> JWS:
    try:
        return parse_compact_jws(token)
    except IDTokenError as error:
        raise LogoutTokenInvalid(error.code) from error


def _check_addressed(claims: Claims, *, declaration: ProviderDeclaration) -> None:
    check_iss_invalid(claims, issuer=declaration.issuer)
    check_aud_invalid(claims, client_id=declaration.client_id, trusted_audiences=declaration.trusted_audiences)


def _check_age(claims: Claims, *, declaration: ProviderDeclaration, now: datetime) -> datetime:
    """Return the instant after which the token is too old. Raises: IatInvalid, ExpInvalid."""
    check_iat_invalid(claims, now=now, leeway=declaration.leeway)
    issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    if "exp" in claims or not declaration.allow_logout_token_without_exp:
        check_exp_invalid(claims, now=now, leeway=declaration.leeway)
        ends_at = min(issued_at + MAX_AGE_OF_IAT, datetime.fromtimestamp(claims["exp"], UTC))
    else:
        ends_at = issued_at + MAX_AGE_WITHOUT_EXP
    if now > ends_at + declaration.leeway:
        raise IatInvalid
    return ends_at + declaration.leeway


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
