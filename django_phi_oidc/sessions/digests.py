"""Digests of what a session stores encrypted, by which its rows are found."""

import hashlib

from ..errors import IDTokenError
from ..oidc.jose import parse_compact_jws
from ..oidc.token import TokenResponse


def sha256_hex(value: str) -> str:
    """Return the SHA-256 of value, hexadecimal: rows can be found by it without storing the
    value.
    """
    return hashlib.sha256(value.encode("utf-8")).hexdigest()


def compute_token_digest(token: str) -> str:
    """Return the digest by which an API of the portal recognizes an access token.

    Of a JWT it is that of the JWS Signing Input: the holder can turn an ECDSA signature into
    another valid one.
    """
    try:
        return sha256_hex(parse_compact_jws(token).signing_input.decode("ascii"))
    except IDTokenError:
        return sha256_hex(token)


def build_token_columns(tokens: TokenResponse) -> dict[str, str]:
    """Return the columns of a session for the tokens that were received."""
    columns = {"refresh_token": tokens.refresh_token, "access_token": tokens.access_token}
    if tokens.access_token:
        columns["access_token_digest"] = compute_token_digest(tokens.access_token)
    token_columns = {}
    for name, value in columns.items():
        if value:
            token_columns[name] = value
    return token_columns
