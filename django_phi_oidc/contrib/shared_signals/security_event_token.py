"""Verification of a security event token (SET). Spec: RFC 8417; SSF 1.0 4.1."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ...config.providers import ProviderDeclaration
from ...errors import Code, IDTokenError
from ...oidc import id_token
from ...oidc.id_token import Claims
from ...oidc.jose import JWS, parse_compact_jws
from ...oidc.jwks import KeySet
from .declaration import SignalsDeclaration
from .errors import SecurityEventTokenInvalid
from .subject_identifier import EventSubject, parse_subject_identifier

SET_TYP = "secevent+jwt"
MAX_SET_AGE = timedelta(days=30)
"""From `iat`. Longer than an outage of the portal that a poll makes up for: effects depend on the
time of the event, so a late one does no harm. The used `jti` are stored for as long.
"""
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
_SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED = f"{_CAEP}session-revoked"
TOKEN_CLAIMS_CHANGE = f"{_CAEP}token-claims-change"
CREDENTIAL_CHANGE = f"{_CAEP}credential-change"
ASSURANCE_LEVEL_CHANGE = f"{_CAEP}assurance-level-change"
ACCOUNT_DISABLED = f"{_RISC}account-disabled"
ACCOUNT_PURGED = f"{_RISC}account-purged"
SESSIONS_REVOKED = f"{_RISC}sessions-revoked"
ACCOUNT_CREDENTIAL_CHANGE_REQUIRED = f"{_RISC}account-credential-change-required"
CREDENTIAL_COMPROMISE = f"{_RISC}credential-compromise"
IDENTIFIER_CHANGED = f"{_RISC}identifier-changed"
IDENTIFIER_RECYCLED = f"{_RISC}identifier-recycled"
VERIFICATION = f"{_SSF}verification"
STREAM_UPDATED = f"{_SSF}stream-updated"
ENDING_EVENTS = (SESSION_REVOKED, SESSIONS_REVOKED, ACCOUNT_DISABLED, ACCOUNT_PURGED)
"""End the sessions of the subject."""
SIGN_IN_EVENTS = (
    *(CREDENTIAL_CHANGE, ASSURANCE_LEVEL_CHANGE),
    *(ACCOUNT_CREDENTIAL_CHANGE_REQUIRED, CREDENTIAL_COMPROMISE),
)
"""Demand a new sign-in before the next guarded page."""
IDENTIFIER_EVENTS = (IDENTIFIER_CHANGED, IDENTIFIER_RECYCLED)
"""Raise an alert."""
EVENTS_WITH_EFFECT = (*ENDING_EVENTS, *SIGN_IN_EVENTS, *IDENTIFIER_EVENTS, TOKEN_CLAIMS_CHANGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEventToken:
    """A verified security event."""

    iss: str
    jti: str = field(repr=False)
    event_type: str
    """A URI. NOT checked: whether it is a known one."""
    event: Mapping[str, Any] = field(repr=False)
    subject: EventSubject
    occurred_at: datetime
    """When the event happened, at the latest: `event_timestamp`, `toe` or `iat`, and not after
    now.
    """
    valid_until: datetime
    """After this time the token is too old."""


def get_transmitter_issuer(declaration: ProviderDeclaration, signals: SignalsDeclaration) -> str:
    """Return the issuer of the events of a provider."""
    return signals.transmitter or declaration.issuer


def address_security_event_token(
    token: str, declarations: Iterable[ProviderDeclaration]
) -> ProviderDeclaration:
    """Return the declaration of the token's issuer and audience. NOTHING is verified.

    Raises: SecurityEventTokenInvalid. Spec: RFC 8417 2.2; SSF 1.0 4.1.6, 4.1.8.
    """
    claims = _parse_jws(token).payload
    rule = Code.ISS_INVALID
    for declaration in declarations:
        signals = declaration.find_option(SignalsDeclaration)
        if signals is None or claims.get("iss") != get_transmitter_issuer(declaration, signals):
            continue
        if _is_audience(claims, declaration=declaration, signals=signals):
            return declaration
        rule = Code.AUD_INVALID
    raise SecurityEventTokenInvalid(rule)


def verify_security_event_token(
    token: str,
    *,
    keys: KeySet,
    declaration: ProviderDeclaration,
    signals: SignalsDeclaration,
    now: datetime,
) -> SecurityEventToken:
    """Return the event of a token that the declared transmitter signed for this receiver in the
    last 30 days.

    Uses the algorithms and the leeway of ID Tokens. The claims are only checked after the
    signature, so that a forger does not learn which claim was wrong. NOT checked: whether jti was
    used before, and the members of the event.
    Raises: SecurityEventTokenInvalid; what keys raises (KeyNotFound, TransportError,
    MetadataError).
    Spec: RFC 8417 2.2, 4; SSF 1.0 4.1; RFC 8725 3.
    """
    jws = _parse_jws(token)
    try:
        id_token.validate_alg(jws, allowed=declaration.id_token_signed_response_alg)
        id_token.validate_signature(jws, keys=keys)
        claims = jws.payload
        _validate_typ(jws)
        id_token.validate_iss(claims, issuer=get_transmitter_issuer(declaration, signals))
        if not _is_audience(claims, declaration=declaration, signals=signals):
            raise IDTokenError(Code.AUD_INVALID)
        issued_at = _get_issue_time(claims, now=now, leeway=declaration.leeway)
        _validate_exp(claims, signals=signals, now=now, leeway=declaration.leeway)
    except IDTokenError as error:
        raise SecurityEventTokenInvalid(error.code) from error
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise SecurityEventTokenInvalid("jti_invalid")
    event_type, event = _get_event(claims)
    return SecurityEventToken(
        iss=claims["iss"],
        jti=jti,
        event_type=event_type,
        event=event,
        subject=_get_subject(
            claims, event, event_type=event_type, declaration=declaration, signals=signals
        ),
        occurred_at=min(_get_event_time(claims, event, issued_at=issued_at), now),
        valid_until=issued_at + MAX_SET_AGE + declaration.leeway,
    )


def _parse_jws(token: str) -> JWS:
    try:
        return parse_compact_jws(token)
    except IDTokenError as error:
        raise SecurityEventTokenInvalid(error.code) from error


def _validate_typ(jws: JWS) -> None:
    """`typ_invalid`: typ is that of a SET, so no ID Token and no logout token is one. Spec: SSF 1.0
    4.1.3.
    """
    if jws.media_type != SET_TYP:
        raise IDTokenError(Code.TYP_INVALID)


def _is_audience(
    claims: Claims, *, declaration: ProviderDeclaration, signals: SignalsDeclaration
) -> bool:
    """Return whether the token is for this receiver only. Spec: SSF 1.0 4.1.8."""
    audiences = id_token.get_audiences(claims)
    return bool(audiences) and set(audiences) <= set(signals.audience or (declaration.client_id,))


def _get_issue_time(claims: Claims, *, now: datetime, leeway: timedelta) -> datetime:
    """`iat_invalid`: iat is a NumericDate, at most 30 days old and not in the future. Spec: RFC
    8417 2.2.
    """
    issued_at = id_token.parse_numeric_date(claims.get("iat"))
    if issued_at is None or not now - MAX_SET_AGE - leeway <= issued_at <= now + leeway:
        raise IDTokenError(Code.IAT_INVALID)
    return issued_at


def _validate_exp(
    claims: Claims, *, signals: SignalsDeclaration, now: datetime, leeway: timedelta
) -> None:
    """`exp_invalid`, `sub_invalid`: neither is present, which distinguishes SETs from other JWTs.

    In the form of drafts, exp may be present and is in the future. Spec: SSF 1.0 4.1.2, 4.1.7; RFC
    8417 4.5, 4.6.
    """
    if "sub" in claims:
        raise IDTokenError(Code.SUB_INVALID)
    if "exp" not in claims:
        return
    if not signals.allow_draft_events:
        raise IDTokenError(Code.EXP_INVALID)
    id_token.validate_exp(claims, now=now, leeway=leeway)


def _get_event(claims: Claims) -> tuple[str, Mapping[str, Any]]:
    """`events_invalid`: events is an object with one member, whose value is an object. Spec: SSF
    1.0 4.1.9.
    """
    events = claims.get("events")
    if not isinstance(events, dict) or len(events) != 1:
        raise SecurityEventTokenInvalid("events_invalid")
    ((event_type, event),) = events.items()
    if not isinstance(event, dict) or not event_type:
        raise SecurityEventTokenInvalid("events_invalid")
    return event_type, event


def _get_subject(
    claims: Claims,
    event: Mapping[str, Any],
    *,
    event_type: str,
    declaration: ProviderDeclaration,
    signals: SignalsDeclaration,
) -> EventSubject:
    """`sub_id_invalid`: sub_id is a subject identifier. Spec: SSF 1.0 4.1.2, 8.1.4.1; RFC 9493
    4.1.
    """
    allow_draft = signals.allow_draft_events
    value = claims.get("sub_id")
    if value is None and allow_draft:
        if event_type in (VERIFICATION, STREAM_UPDATED) and "subject" not in event:
            return EventSubject()
        value = event.get("subject")
    # The subject of an event about the stream is the stream, which has no issuer.
    return parse_subject_identifier(value, issuer=declaration.issuer, allow_draft=allow_draft)


def _get_event_time(claims: Claims, event: Mapping[str, Any], *, issued_at: datetime) -> datetime:
    """`events_invalid`: event_timestamp and toe, if present, are NumericDates. Spec: CAEP 1.0 2;
    RFC 8417 2.2.
    """
    for members, name in ((event, "event_timestamp"), (claims, "toe")):
        if name in members:
            occurred_at = id_token.parse_numeric_date(members[name])
            if occurred_at is None:
                raise SecurityEventTokenInvalid("events_invalid")
            return occurred_at.astimezone(UTC)
    return issued_at
