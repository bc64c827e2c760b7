"""The claims of scopes and requests, and pairwise subject identifiers. Spec: OIDC Core 5.4, 5.5,
8.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from .registrations import Account, Client

SCOPE_CLAIMS: Mapping[str, tuple[str, ...]] = {
    # Not a standard claim. Every client gets it, as is usual for the provider of an organization.
    "openid": ("roles",),
    "profile": (
        "name",
        "family_name",
        "given_name",
        "middle_name",
        "nickname",
        "preferred_username",
        "profile",
        "picture",
        "website",
        "gender",
        "birthdate",
        "zoneinfo",
        "locale",
        "updated_at",
    ),
    "email": ("email", "email_verified"),
    "address": ("address",),
    "phone": ("phone_number", "phone_number_verified"),
}
SCOPES = (*SCOPE_CLAIMS, "offline_access")
PROTOCOL_CLAIMS = (
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "auth_time",
    "nonce",
    "acr",
    "sid",
    "at_hash",
)


def select_claims(
    account: Account, *, scope: Iterable[str] = (), claim_names: Iterable[str] = ()
) -> dict[str, Any]:
    """Return those claims of the account that the scope or claim_names cover."""
    names = set(claim_names)
    for value in scope:
        names.update(SCOPE_CLAIMS.get(value, ()))
    claims = {}
    for name, value in account.claims.items():
        if name in names and name not in PROTOCOL_CLAIMS:
            claims[name] = value
    return claims


def list_supported_claims(accounts: Iterable[Account]) -> list[str]:
    """Return the names of all claims that this provider supports."""
    supported = set(PROTOCOL_CLAIMS)
    for names in SCOPE_CLAIMS.values():
        supported.update(names)
    for account in accounts:
        supported.update(account.claims)
    return sorted(supported)


def compute_subject(
    account: Account, client: Client, *, salt: bytes, is_pairwise: bool = True
) -> str:
    """Return the `sub` of the account for the client's sector; with public subjects, one for all
    sectors.

    Without the salt, the subjects of two sectors cannot be linked or traced to the account. Spec:
    OIDC Core 8.1.
    """
    if is_pairwise:
        sector = client.get_sector_identifier()
        return _compute_digest(salt, "pairwise", sector, account.username)
    return _compute_digest(salt, "public", "", account.username)


def compute_session_id(session_id: str, client: Client, *, salt: bytes) -> str:
    """Return the `sid` of a session, a different one for each client. Spec: OIDC Back-Channel
    Logout 2.1.
    """
    return _compute_digest(salt, "sid", client.client_id, session_id)


def _compute_digest(salt: bytes, *parts: str) -> str:
    # Length prefixes make the encoding of the parts unambiguous.
    message = b""
    for part in parts:
        encoded_part = part.encode()
        message += len(encoded_part).to_bytes(4, "big") + encoded_part
    digest = hmac.digest(salt, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
