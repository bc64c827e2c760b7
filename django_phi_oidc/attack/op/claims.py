"""Which claims a scope stands for, and which of a person's claims a request was granted. Spec: OIDC Core 5.4, 5.5."""

from collections.abc import Iterable, Mapping
from typing import Any

from .registrations import Account

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


def claims_of(account: Account, *, scope: Iterable[str] = (), names: Iterable[str] = ()) -> dict[str, Any]:
    """Return those of the account's claims that scope or names cover; what the account lacks is left out."""
    wanted = {name for value in scope for name in SCOPE_CLAIMS.get(value, ())} | set(names)
    return {name: value for name, value in account.claims.items() if name in wanted and name not in PROTOCOL_CLAIMS}


def supported_claims(accounts: Iterable[Account]) -> list[str]:
    """Return the names of all claims that this provider can give of anybody."""
    known = {name for names in SCOPE_CLAIMS.values() for name in names}
    return sorted(known | {name for account in accounts for name in account.claims} | set(PROTOCOL_CLAIMS))
