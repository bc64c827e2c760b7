"""Which claims a scope stands for, and which of a person's claims a request was granted. Spec: OIDC Core 5.4, 5.5.

What a client gets to call a person. Spec: OIDC Core 8.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from .registrations import Account, Client

SCOPE_CLAIMS: Mapping[str, tuple[str, ...]] = {
    # No standard claim: of whoever has one, every client is told, as organizations set up their own providers.
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
PROTOCOL_CLAIMS = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "auth_time", "nonce", "acr", "sid", "at_hash")


def select_claims(account: Account, *, scope: Iterable[str] = (), claim_names: Iterable[str] = ()) -> dict[str, Any]:
    """Return those of the account's claims that scope or names cover; what the account lacks is left out."""
    wanted = {name for value in scope for name in SCOPE_CLAIMS.get(value, ())} | set(claim_names)
    return {name: value for name, value in account.claims.items() if name in wanted and name not in PROTOCOL_CLAIMS}


def list_supported_claims(accounts: Iterable[Account]) -> list[str]:
    """Return the names of all claims that this provider can give of anybody."""
    known = {name for names in SCOPE_CLAIMS.values() for name in names}
    return sorted(known | {name for account in accounts for name in account.claims} | set(PROTOCOL_CLAIMS))


def compute_subject(account: Account, client: Client, *, salt: bytes, is_pairwise: bool = True) -> str:
    """Return the `sub` of account for the client's sector, or one for all sectors where subjects are public.

    Two sectors can't be joined without the salt, and the account can't be read back. Spec: OIDC Core 8.1.
    """
    return _compute_digest(
        salt,
        "pairwise" if is_pairwise else "public",
        client.get_sector_identifier() if is_pairwise else "",
        account.username,
    )


def compute_session_id(session_id: str, client: Client, *, salt: bytes) -> str:
    """Return the `sid` of a session at the provider, a different one for each client. Spec: OIDC Back-Channel 2.1."""
    return _compute_digest(salt, "sid", client.client_id, session_id)


def _compute_digest(salt: bytes, *parts: str) -> str:
    # Lengths stand before the parts: no two lists of parts have the same bytes.
    message = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
    return base64.urlsafe_b64encode(hmac.digest(salt, message, hashlib.sha256)).rstrip(b"=").decode("ascii")
