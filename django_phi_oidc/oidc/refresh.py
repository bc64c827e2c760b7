"""Refresh of the tokens of a sign-in (R8). Spec: OIDC Core 12, RFC 6749 6."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

from ..config.providers import ProviderDeclaration
from ..errors import RefreshMismatch
from ..http.transport import TransportRequest, TransportResponse
from .client_auth import ClientContext, build_client_request
from .id_token import VerifiedClaims, validate_at_hash, verify_id_token_issuance
from .jwks import KeySet
from .logout_token import has_logout_event
from .token import (
    TokenResponse,
    TokenType,
    build_resource_parameter,
    get_id_token,
    process_grant_response,
)

UNCHANGED_CLAIMS = ("iss", "sub", "aud", "azp")
"""Claims that must be unchanged, or absent both times. Spec: Core 12.2."""
UNCHANGED_CLAIMS_IF_PRESENT = ("auth_time", "nonce")


def build_refresh_request(
    *, refresh_token: str, **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return the request that uses refresh_token for the granted scope. A rotating provider accepts
    the token once.

    Spec: Core 12.1, RFC 6749 6, RFC 8707 2.2.
    """
    resource = build_resource_parameter(client["declaration"])
    parameters = {"grant_type": "refresh_token", "refresh_token": refresh_token, **resource}
    endpoint = client["metadata"].token_endpoint
    return build_client_request(operation="refresh", url=endpoint, parameters=parameters, **client)


def process_refresh_response(
    response: TransportResponse,
    *,
    declaration: ProviderDeclaration,
    token_types: Sequence[TokenType] = ("Bearer",),
) -> TokenResponse:
    """Return the new tokens; id_token and refresh_token are empty if the response has none.

    Requires and raises the same as process_token_response, but the ID Token is optional. Spec: Core
    12.2.
    """
    return process_grant_response(
        response,
        declaration=declaration,
        id_token_getter=_get_optional_id_token,
        token_types=token_types,
    )


def verify_refreshed_id_token(
    token: str,
    *,
    original_claims: Mapping[str, Any],
    keys: KeySet,
    declaration: ProviderDeclaration,
    access_token: str,
    now: datetime,
) -> VerifiedClaims:
    """Return the claims of an ID Token from a refresh, of the same person and authentication as
    original_claims.

    original_claims: those of the ID Token of the sign-in. NOT checked: the level of assurance and
    the age of auth_time, which were checked at the sign-in. Raises: RefreshMismatch; IDTokenError;
    what keys raises. Spec: Core 12.2.
    """
    jws = verify_id_token_issuance(token, keys=keys, declaration=declaration, now=now)
    validate_refreshed_claims(jws.payload, original_claims=original_claims)
    validate_at_hash(jws.payload, alg=jws.alg, access_token=access_token)
    return VerifiedClaims(jws.payload)


def validate_refreshed_claims(
    claims: Mapping[str, Any], *, original_claims: Mapping[str, Any]
) -> None:
    """`refresh_mismatch`: iss, sub, aud and azp are unchanged, and so are auth_time and nonce if
    present.

    Logout tokens are refused: a refreshed ID Token may lack the nonce that would distinguish it
    from a logout token.
    Spec: Core 12.2, Back-Channel Logout 4.
    """
    if has_logout_event(claims):
        raise RefreshMismatch
    if any(claims.get(name) != original_claims.get(name) for name in UNCHANGED_CLAIMS):
        raise RefreshMismatch
    if any(
        name in claims and claims[name] != original_claims.get(name)
        for name in UNCHANGED_CLAIMS_IF_PRESENT
    ):
        raise RefreshMismatch


def _get_optional_id_token(members: Mapping[str, Any]) -> str:
    if "id_token" in members:
        return get_id_token(members)
    return ""
