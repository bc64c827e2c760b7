"""Verification of a back-channel logout token (R9). Spec: OIDC Back-Channel Logout 1.0, 2.4 and
2.6.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ..config.providers import ProviderDeclaration
from ..errors import Code, IDTokenError, LogoutTokenInvalid
from . import id_token
from .id_token import Claims
from .jose import JWS, parse_compact_jws
from .jwe import get_signed_token
from .jwks import KeySet

BACKCHANNEL_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_TYP = "logout+jwt"
MAX_AGE_WITHOUT_EXP = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutToken:
    """A verified logout of one session, if it has a sid, or of all sessions of a person (2.4)."""

    iss: str
    sub: str = field(repr=False)
    """Empty if the token identifies only a session."""
    sid: str = field(repr=False)
    """Empty if the token identifies only a person."""
    jti: str = field(repr=False)
    valid_until: datetime
    """After this time the token is too old."""


class AddressedLogoutToken(NamedTuple):
    """A logout token, decrypted, and the declaration whose keys must verify it."""

    signed_token: str
    declaration: ProviderDeclaration


def address_logout_token(
    token: str, declarations: Iterable[ProviderDeclaration]
) -> AddressedLogoutToken:
    """Return the token with the declaration of its issuer and client. NOTHING is verified.

    An encrypted token shows neither, so the keys of each provider that encrypts ID Tokens are
    tried.
    Raises: LogoutTokenInvalid. Spec: Back-Channel Logout 2.4, 2.6 (1).
    """
    if token.count(".") != 4:
        declaration = _get_declaration(token, declarations)
        if declaration.id_token_encryption.algs:
            raise LogoutTokenInvalid(Code.ENCRYPTION_MISSING)
        return AddressedLogoutToken(token, declaration)
    rule: str = Code.ENCRYPTION_UNDECLARED
    for declaration in declarations:
        if declaration.id_token_encryption.algs:
            try:
                signed_token = get_signed_token(token, encryption=declaration.id_token_encryption)
                return AddressedLogoutToken(
                    signed_token, _get_declaration(signed_token, [declaration])
                )
            except (IDTokenError, LogoutTokenInvalid) as error:
                if isinstance(error, LogoutTokenInvalid):
                    rule = error.rule
                else:
                    rule = error.code
    raise LogoutTokenInvalid(rule)


def _get_declaration(
    token: str, declarations: Iterable[ProviderDeclaration]
) -> ProviderDeclaration:
    claims = _parse_logout_token(token).payload
    rule = "iss_invalid"
    for declaration in declarations:
        try:
            _validate_issuer_and_audience(claims, declaration=declaration)
        except IDTokenError as error:
            # The audience distinguishes several clients of one issuer.
            if claims.get("iss") == declaration.issuer:
                rule = error.code
        else:
            return declaration
    raise LogoutTokenInvalid(rule)


def verify_logout_token(
    token: str, *, keys: KeySet, declaration: ProviderDeclaration, now: datetime
) -> LogoutToken:
    """Return the logout of a token that the declared issuer recently signed for this client.

    Uses the order, times and leeway of verify_id_token. NOT checked: whether jti was used before.
    Raises: LogoutTokenInvalid; what keys raises (KeyNotFound, TransportError, MetadataError).
    Spec: Back-Channel Logout 2.6; RFC 7519 4.1; RFC 8725 3.
    """
    jws = _parse_logout_token(token)
    try:
        id_token.validate_alg(jws, allowed=declaration.id_token_signed_response_alg)
        id_token.validate_signature(jws, keys=keys)
    except IDTokenError as error:
        raise LogoutTokenInvalid(error.code) from error
    return _validate_content(jws, declaration=declaration, now=now)


def validate_without_signature(
    token: str, *, declaration: ProviderDeclaration, now: datetime
) -> None:
    """Refuse a token that no key of the provider can make valid. NOTHING is verified.

    Raises: LogoutTokenInvalid.
    """
    jws = _parse_logout_token(token)
    try:
        id_token.validate_alg(jws, allowed=declaration.id_token_signed_response_alg)
    except IDTokenError as error:
        raise LogoutTokenInvalid(error.code) from error
    _validate_content(jws, declaration=declaration, now=now)


def _validate_content(jws: JWS, *, declaration: ProviderDeclaration, now: datetime) -> LogoutToken:
    """Return the logout of the token, except for the signature. Raises: LogoutTokenInvalid."""
    try:
        validate_typ(jws, required=declaration.require_logout_typ)
        claims = jws.payload
        _validate_issuer_and_audience(claims, declaration=declaration)
        valid_until = _validate_age(claims, declaration=declaration, now=now)
        id_token.validate_nbf(claims, now=now, leeway=declaration.leeway)
        if "sub" in claims:
            id_token.validate_sub(claims)
    except IDTokenError as error:
        raise LogoutTokenInvalid(error.code) from error
    validate_logout_claims(claims)
    sub = claims.get("sub", "")
    sid = claims.get("sid", "")
    jti = claims["jti"]
    return LogoutToken(iss=declaration.issuer, sub=sub, sid=sid, jti=jti, valid_until=valid_until)


def has_logout_event(claims: Claims) -> bool:
    """Return whether these are the claims of a logout token, not of an ID Token. Spec: Back-Channel
    Logout 2.4, 4.
    """
    events = claims.get("events")
    return isinstance(events, dict) and BACKCHANNEL_LOGOUT_EVENT in events


def validate_typ(jws: JWS, *, required: bool) -> None:
    """`typ_invalid`: typ is the media type of logout tokens or, unless required, JWT or absent.

    The type is only recommended, so it does not distinguish logout tokens from ID Tokens:
    validate_logout_claims does.
    Spec: Back-Channel Logout 2.4, 4.1; RFC 7515 4.1.9.
    """
    accepted: tuple[str | None, ...]
    if required:
        accepted = (LOGOUT_TOKEN_TYP,)
    else:
        accepted = (LOGOUT_TOKEN_TYP, "jwt", None)
    if jws.media_type not in accepted:
        raise LogoutTokenInvalid("typ_invalid")


def validate_logout_claims(claims: Claims) -> None:
    """Require the logout event, jti, sub or sid, and no nonce, which an ID Token would have. Spec:
    2.4, 2.6.
    """
    if not has_logout_event(claims) or not isinstance(
        claims["events"][BACKCHANNEL_LOGOUT_EVENT], dict
    ):
        raise LogoutTokenInvalid("events_invalid")
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise LogoutTokenInvalid("jti_invalid")
    if "sid" in claims and (not isinstance(claims["sid"], str) or not claims["sid"]):
        raise LogoutTokenInvalid("sid_invalid")
    if "sub" not in claims and "sid" not in claims:
        raise LogoutTokenInvalid("sub_invalid")
    if "nonce" in claims:
        raise LogoutTokenInvalid("nonce_invalid")


def _parse_logout_token(token: str) -> JWS:
    try:
        return parse_compact_jws(token)
    except IDTokenError as error:
        raise LogoutTokenInvalid(error.code) from error


def _validate_issuer_and_audience(claims: Claims, *, declaration: ProviderDeclaration) -> None:
    id_token.validate_iss(claims, issuer=declaration.issuer)
    id_token.validate_aud(
        claims, client_id=declaration.client_id, trusted_audiences=declaration.trusted_audiences
    )


def _validate_age(claims: Claims, *, declaration: ProviderDeclaration, now: datetime) -> datetime:
    """Return the time after which the token is too old. Raises: IDTokenError."""
    id_token.validate_iat(claims, now=now, leeway=declaration.leeway)
    issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    if "exp" in claims or not declaration.allow_logout_token_without_exp:
        id_token.validate_exp(claims, now=now, leeway=declaration.leeway)
        ends_at = min(issued_at + id_token.MAX_IAT_AGE, datetime.fromtimestamp(claims["exp"], UTC))
    else:
        ends_at = issued_at + MAX_AGE_WITHOUT_EXP
    if now > ends_at + declaration.leeway:
        raise IDTokenError(Code.IAT_INVALID)
    return ends_at + declaration.leeway
