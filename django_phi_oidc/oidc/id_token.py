"""Verification of an ID Token for this client and this sign-in (R6). Spec: OIDC Core 2, 3.1.3.7."""

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NewType

from ..config.providers import ProviderDeclaration
from ..config.signature_algorithms import SIGNATURE_ALGORITHMS
from ..errors import Code, IDTokenError
from .jose import JWS, encode_b64url, parse_compact_jws
from .jwks import KeySet
from .vectors_of_trust import is_vector_sufficient, parse_vector

VerifiedClaims = NewType("VerifiedClaims", Mapping[str, Any])
"""Claims of a verified ID Token. Only verify_id_token (R6) and verify_refreshed_id_token (R8)
create them.
"""

MAX_IAT_AGE = timedelta(minutes=10)
HEART_MAX_ID_TOKEN_LIFETIME = timedelta(minutes=5)
_MAX_TIMESTAMP = 253402300799 - 24 * 60 * 60
"""A day before the year 10000; later times cannot be converted to every time zone."""

_EMAIL_PATTERN = re.compile(r"\S+@\S+")

Claims = Mapping[str, Any]


def verify_id_token(
    token: str,
    *,
    keys: KeySet,
    declaration: ProviderDeclaration,
    expected_nonce: str,
    is_issued_nonce: Callable[[str], bool],
    access_token: str,
    now: datetime,
) -> VerifiedClaims:
    """Return the claims of an ID Token that the declared issuer signed for this client and this
    sign-in.

    Order: structure, alg, signature, then the claims in the order of Core 3.1.3.7. The claims are
    only checked after the signature, so that a forger does not learn which claim was wrong.

    is_issued_nonce: whether we issued a nonce for any sign-in. Times have the declared leeway. NOT
    checked: sid, the types of other claims, and auth_time, acr, vot and amr unless the declaration
    requires them (see parse_numeric_date).
    Raises: IDTokenError; what keys raises (KeyNotFound, TransportError, MetadataError).
    Spec: Core 3.1.3.7, 3.1.3.8; RFC 7519 4.1; RFC 8725 3.
    """
    jws = verify_id_token_issuance(token, keys=keys, declaration=declaration, now=now)
    claims = jws.payload
    validate_nonce(claims, expected_nonce=expected_nonce, is_issued_nonce=is_issued_nonce)
    validate_sub(claims)
    if declaration.subject_type == "pairwise":
        validate_pairwise_sub(claims)
    validate_assurance(claims, declaration=declaration)
    if declaration.max_age is not None and not (
        declaration.allow_auth_time_zero and is_zero(claims.get("auth_time"))
    ):
        validate_auth_time(claims, max_age=declaration.max_age, now=now, leeway=declaration.leeway)
    validate_at_hash(claims, alg=jws.alg, access_token=access_token)
    return VerifiedClaims(claims)


def verify_id_token_issuance(
    token: str, *, keys: KeySet, declaration: ProviderDeclaration, now: datetime
) -> JWS:
    """Return an ID Token that the declared issuer recently signed for this client. NOT checked:
    person and sign-in.

    Raises: IDTokenError; what keys raises. Spec: Core 3.1.3.7 (2 to 10), for a refresh by Core
    12.2.
    """
    leeway = declaration.leeway
    jws = parse_compact_jws(token)
    validate_alg(jws, allowed=declaration.id_token_signed_response_alg)
    validate_signature(jws, keys=keys)
    validate_typ(jws)
    claims = jws.payload
    validate_iss(claims, issuer=declaration.issuer)
    validate_aud(
        claims, client_id=declaration.client_id, trusted_audiences=declaration.trusted_audiences
    )
    validate_azp(claims, client_id=declaration.client_id)
    validate_exp(claims, now=now, leeway=leeway)
    validate_iat(claims, now=now, leeway=leeway)
    validate_nbf(claims, now=now, leeway=leeway)
    if declaration.profile == "heart":
        validate_id_token_lifetime(claims)
    return jws


def parse_numeric_date(value: object) -> datetime | None:
    """Return the time of a NumericDate; None if value is not one. Spec: RFC 7519 2
    (NumericDate).
    """
    seconds = _find_numeric_date_seconds(value)
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def find_auth_time(claims: VerifiedClaims) -> datetime | None:
    """Return when the person authenticated. None if unknown, which some providers express as 0."""
    auth_time = claims.get("auth_time")
    if is_zero(auth_time):
        return None
    return parse_numeric_date(auth_time)


def is_zero(value: object) -> bool:
    """Return whether value is the number 0, which some providers send as an unknown `auth_time`."""
    return _find_numeric_date_seconds(value) == 0


def validate_alg(jws: JWS, *, allowed: tuple[str, ...]) -> None:
    """`alg_not_allowed`: alg is declared and supported, so never `none` or HS*. Spec: Core 3.1.3.7
    (6-8).
    """
    if jws.alg not in allowed or jws.alg not in SIGNATURE_ALGORITHMS:
        raise IDTokenError(Code.ALG_NOT_ALLOWED)


def validate_signature(jws: JWS, *, keys: KeySet) -> None:
    """`signature_invalid`: signed with the provider's key of that kid. Spec: Core 3.1.3.7 (6),
    10.1; RFC 7515 5.2.
    """
    key = keys.get_key(kid=jws.kid, alg=jws.alg)
    if not key.verify(jws.alg, jws.signing_input, jws.signature):
        raise IDTokenError(Code.SIGNATURE_INVALID)


def validate_typ(jws: JWS) -> None:
    """`typ_invalid`: typ is not that of another kind of JWT, such as logout+jwt or at+jwt; ID
    Tokens have no such type.

    Spec: RFC 8725 3.11, 3.12; RFC 7515 4.1.9.
    """
    if (jws.media_type or "").endswith("+jwt"):
        raise IDTokenError(Code.TYP_INVALID)


def validate_iss(claims: Claims, *, issuer: str) -> None:
    """`iss_invalid`: iss is exactly the issuer. Spec: Core 3.1.3.7 (2)."""
    if claims.get("iss") != issuer:
        raise IDTokenError(Code.ISS_INVALID)


def validate_aud(claims: Claims, *, client_id: str, trusted_audiences: tuple[str, ...]) -> None:
    """`aud_invalid`: aud contains this client, and otherwise only trusted audiences. Spec: Core
    3.1.3.7 (3).
    """
    audiences = get_audiences(claims)
    if client_id not in audiences or not set(audiences) <= {client_id, *trusted_audiences}:
        raise IDTokenError(Code.AUD_INVALID)


def validate_azp(claims: Claims, *, client_id: str) -> None:
    """`azp_invalid`: azp is this client. It may be absent with a single audience. Spec: Core 2,
    3.1.3.7 (4-5).
    """
    if "azp" in claims and claims["azp"] != client_id:
        raise IDTokenError(Code.AZP_INVALID)
    if "azp" not in claims and len(get_audiences(claims)) > 1:
        raise IDTokenError(Code.AZP_INVALID)


def validate_exp(claims: Claims, *, now: datetime, leeway: timedelta) -> None:
    """`exp_invalid`: exp is a NumericDate in the future. Spec: Core 3.1.3.7 (9), RFC 7519 4.1.4."""
    exp = _find_numeric_date_seconds(claims.get("exp"))
    if exp is None or exp <= (now - leeway).timestamp():
        raise IDTokenError(Code.EXP_INVALID)


def validate_iat(claims: Claims, *, now: datetime, leeway: timedelta) -> None:
    """`iat_invalid`: iat is a NumericDate, at most ten minutes old and not in the future. Spec:
    Core 3.1.3.7 (10).
    """
    iat = _find_numeric_date_seconds(claims.get("iat"))
    if (
        iat is None
        or not (now - MAX_IAT_AGE - leeway).timestamp() <= iat <= (now + leeway).timestamp()
    ):
        raise IDTokenError(Code.IAT_INVALID)


def validate_nbf(claims: Claims, *, now: datetime, leeway: timedelta) -> None:
    """`nbf_invalid`: nbf, if present, is a NumericDate and not in the future. Spec: RFC 7519
    4.1.5.
    """
    nbf = _find_numeric_date_seconds(claims.get("nbf", 0))
    if nbf is None or nbf > (now + leeway).timestamp():
        raise IDTokenError(Code.NBF_INVALID)


def validate_id_token_lifetime(claims: Claims) -> None:
    """`id_token_lifetime`: exp is at most five minutes after iat, and not before it.

    Without leeway, because both times are from the provider's clock. The profile requires the same
    claims as Core 2.
    Spec: HEART's profile of OpenID Connect 3.1.
    """
    exp, iat = (_find_numeric_date_seconds(claims.get(name)) or 0 for name in ("exp", "iat"))
    if not 0 <= exp - iat <= HEART_MAX_ID_TOKEN_LIFETIME.total_seconds():
        raise IDTokenError(Code.ID_TOKEN_LIFETIME)


def validate_nonce(
    claims: Claims, *, expected_nonce: str, is_issued_nonce: Callable[[str], bool]
) -> None:
    """`nonce_invalid`, `token_replayed`: nonce is that of this sign-in. The nonce of another
    sign-in is a replay.

    Spec: Core 3.1.3.7 (11), 15.5.2.
    """
    claimed = claims.get("nonce")
    if not isinstance(claimed, str) or not claimed:
        raise IDTokenError(Code.NONCE_INVALID)
    if hmac.compare_digest(claimed.encode(), expected_nonce.encode()):
        return
    if is_issued_nonce(claimed):
        raise IDTokenError(Code.TOKEN_REPLAYED)
    raise IDTokenError(Code.NONCE_INVALID)


def validate_sub(claims: Claims) -> None:
    """`sub_invalid`: sub is 1 to 255 ASCII characters without control characters. Spec: Core 2."""
    sub = claims.get("sub")
    if (
        not isinstance(sub, str)
        or not 0 < len(sub) <= 255
        or not sub.isascii()
        or not sub.isprintable()
    ):
        raise IDTokenError(Code.SUB_INVALID)


def validate_pairwise_sub(claims: Claims) -> None:
    """`sub_not_pairwise`: sub is not an identifier that other clients receive, ignoring case. Spec:
    Core 8.1.
    """
    sub = claims["sub"].casefold()
    shared = (claims.get(name) for name in ("email", "preferred_username", "phone_number"))
    if _EMAIL_PATTERN.fullmatch(sub) or any(
        isinstance(value, str) and value.casefold() == sub for value in shared
    ):
        raise IDTokenError(Code.SUB_NOT_PAIRWISE)


def validate_assurance(claims: Claims, *, declaration: ProviderDeclaration) -> None:
    """Check the levels that the declaration requires. Spec: Core 3.1.3.7 (12); RFC 8485 4; RFC
    8176.
    """
    if declaration.accepted_acr_values:
        validate_acr(claims, accepted=declaration.accepted_acr_values)
    if declaration.vtr:
        validate_vtm(claims, vtm=declaration.vtm)
        validate_vot(claims, vtr=declaration.vtr)
    if declaration.amr_required:
        validate_amr(claims, required=declaration.amr_required)


def validate_acr(claims: Claims, *, accepted: tuple[str, ...]) -> None:
    """`acr_insufficient`: acr is one of the accepted values. Spec: Core 3.1.3.7 (12), 5.5.1.1."""
    acr = claims.get("acr")
    if not isinstance(acr, str) or acr not in accepted:
        raise IDTokenError(Code.ACR_INSUFFICIENT)


def validate_vtm(claims: Claims, *, vtm: str) -> None:
    """`vtm_invalid`: vtm is exactly the declared trust mark. Another one may define the same
    letters otherwise.

    Spec: RFC 8485 5.
    """
    if not vtm or claims.get("vtm") != vtm:
        raise IDTokenError(Code.VTM_INVALID)


def validate_vot(claims: Claims, *, vtr: tuple[str, ...]) -> None:
    """`vot_insufficient`: vot has all components of one of the vectors. Spec: RFC 8485 3, 4."""
    if not is_vector_sufficient(claims.get("vot"), accepted=vtr):
        raise IDTokenError(Code.VOT_INSUFFICIENT)


def validate_amr(claims: Claims, *, required: tuple[str, ...]) -> None:
    """`amr_insufficient`: amr is a list of strings, and at least one of the methods is in it.

    Not all: providers list the method that was used among alternatives, such as a smart card or a
    passkey, and name several factors by `mfa`. Spec: Core 2 (amr); RFC 8176 1, 2.
    """
    amr = claims.get("amr")
    if (
        not isinstance(amr, list)
        or not all(isinstance(name, str) for name in amr)
        or not set(required) & set(amr)
    ):
        raise IDTokenError(Code.AMR_INSUFFICIENT)


def find_vector_of_trust(claims: Claims, *, vtm: str) -> str:
    """Return vot if it is a vector under the declared trust mark, otherwise an empty string. Spec:
    RFC 8485 3, 5.
    """
    vot = claims.get("vot")
    is_trusted = bool(vtm) and claims.get("vtm") == vtm and bool(parse_vector(vot))
    if is_trusted:
        return str(vot)
    return ""


def validate_auth_time(claims: Claims, *, max_age: int, now: datetime, leeway: timedelta) -> None:
    """`auth_time_missing`, `auth_time_stale`: auth_time is a NumericDate, at most max_age seconds
    ago.

    A time in the future, beyond the leeway, counts as stale. Spec: Core 2, 3.1.2.1 (max_age),
    3.1.3.7 (13).
    """
    auth_time = _find_numeric_date_seconds(claims.get("auth_time"))
    if auth_time is None:
        raise IDTokenError(Code.AUTH_TIME_MISSING)
    if not (now - leeway).timestamp() - max_age <= auth_time <= (now + leeway).timestamp():
        raise IDTokenError(Code.AUTH_TIME_STALE)


def validate_at_hash(claims: Claims, *, alg: str, access_token: str) -> None:
    """`at_hash_invalid`: at_hash, if present, is the left half of the access token's hash. Spec:
    Core 3.1.3.8.
    """
    if "at_hash" not in claims:
        return
    at_hash = claims["at_hash"]
    digest = hashlib.new(SIGNATURE_ALGORITHMS[alg].hash_name, access_token.encode()).digest()
    expected = encode_b64url(digest[: len(digest) // 2])
    if not isinstance(at_hash, str) or not hmac.compare_digest(at_hash.encode(), expected.encode()):
        raise IDTokenError(Code.AT_HASH_INVALID)


def get_audiences(claims: Claims) -> list[str]:
    """Return the audiences; an empty list if aud is not a string or a list of strings. Spec: RFC
    7519 4.1.3.
    """
    aud = claims.get("aud")
    audiences: Any
    if isinstance(aud, str):
        audiences = [aud]
    else:
        audiences = aud

    if not isinstance(audiences, list) or not all(
        isinstance(audience, str) for audience in audiences
    ):
        return []
    return audiences


def _find_numeric_date_seconds(value: object) -> float | None:
    """Return a NumericDate in seconds since the epoch; None unless it is a number that a datetime
    can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if math.isfinite(value) and 0 <= value <= _MAX_TIMESTAMP:
        return value
    return None
