"""R8: a refresh token gives new tokens, and they speak of the same sign-in. Spec: OIDC Core 12, RFC 6749 6."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..declarations import ProviderDeclaration
from ..errors import RefreshMismatch
from .client_auth import Freshness, build_client_request
from .id_token import VerifiedClaims, check_at_hash_invalid, verify_issued_for_client
from .jwks import KeySet
from .logout_token import is_logout
from .metadata import ProviderMetadata
from .token import TokenResponse, judge_tokens, read_id_token
from .transport import Request, Response

SAME = ("iss", "sub", "aud", "azp")
"""Claims that a refresh leaves as they were, absent ones absent. Spec: Core 12.2."""
SAME_IF_THERE = ("auth_time", "nonce")


def build_refresh_request(
    *, metadata: ProviderMetadata, declaration: ProviderDeclaration, refresh_token: str, freshness: Freshness
) -> Request:
    """Return the request that spends refresh_token, for the scope that was granted. An OP that rotates takes it once.

    Spec: Core 12.1, RFC 6749 6.
    """
    return build_client_request(
        call="refresh",
        url=metadata.token_endpoint,
        metadata=metadata,
        declaration=declaration,
        parameters={"grant_type": "refresh_token", "refresh_token": refresh_token},
        freshness=freshness,
    )


def judge_refresh_response(response: Response, *, declaration: ProviderDeclaration) -> TokenResponse:
    """Return the new tokens; id_token and refresh_token are empty where none came.

    Requires and raises what judge_token_response does, but that an ID Token need not come. Spec: Core 12.2.
    """
    return judge_tokens(response, declaration=declaration, id_token_of=_id_token_if_any)


def verify_refreshed_id_token(
    token: str,
    *,
    original: Mapping[str, Any],
    keys: KeySet,
    declaration: ProviderDeclaration,
    access_token: str,
    now: datetime,
) -> VerifiedClaims:
    """Return the claims of an ID Token that came with a refresh, of the same person and authentication as original.

    original: the claims of the ID Token of the sign-in. NOT checked: acr, and how long ago auth_time is, which was
    judged then.

    Raises: RefreshMismatch; IDTokenError; what keys raises.
    Spec: Core 12.2.
    """
    jws = verify_issued_for_client(token, keys=keys, declaration=declaration, now=now)
    check_refresh_mismatch(jws.payload, original=original)
    check_at_hash_invalid(jws.payload, alg=jws.alg, access_token=access_token)
    return VerifiedClaims(jws.payload)


def check_refresh_mismatch(claims: Mapping[str, Any], *, original: Mapping[str, Any]) -> None:
    """`refresh_mismatch`: iss, sub, aud and azp are the same, and so are auth_time and nonce where they came again.

    A logout token, which no nonce tells from an ID Token here, is none. Spec: Core 12.2, Back-Channel Logout 4.
    """
    if is_logout(claims):
        raise RefreshMismatch
    if any(claims.get(name) != original.get(name) for name in SAME):
        raise RefreshMismatch
    if any(name in claims and claims[name] != original.get(name) for name in SAME_IF_THERE):
        raise RefreshMismatch


def _id_token_if_any(members: Mapping[str, Any]) -> str:
    return read_id_token(members) if "id_token" in members else ""
