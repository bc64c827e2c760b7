"""Functions that tamper with an exchange of the mock provider. Each takes the exchange and a
value.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..._internal import clock
from ..mock_provider import MutableExchange, Reply, create_signing_key, sign_bytes
from ..mock_provider.signing import parse_unverified

TamperFunction = Callable[[MutableExchange, Any], Reply | str | None]
OMITTED = object()
"""The member is omitted, or the header is left unchanged."""


def tamper_member(name: str) -> TamperFunction:
    """Set or omit one member of a JSON response or of a token's claims."""

    def tamper(exchange: MutableExchange, value: Any) -> None:
        if exchange.reply.json is not None:
            members = exchange.reply.json
        else:
            members = exchange.claims
        if value is OMITTED:
            members.pop(name, None)
        elif callable(value):
            members[name] = value(members)
        else:
            members[name] = value

    return tamper


def tamper_members(exchange: MutableExchange, values: Mapping[str, Any]) -> None:
    """Set or omit several members."""
    for name, value in values.items():
        tamper_member(name)(exchange, value)


def tamper_header(name: str) -> TamperFunction:
    """Set one member of a token's header; OMITTED: leave it unchanged."""

    def tamper(exchange: MutableExchange, value: Any) -> None:
        if value is not OMITTED:
            exchange.header[name] = value

    return tamper


def tamper_reply(exchange: MutableExchange, changes: Mapping[str, Any] | None) -> None:
    """Set attributes of the HTTP response."""
    for name, value in (changes or {}).items():
        if name == "headers":
            exchange.reply.headers.update(value)
        else:
            setattr(exchange.reply, name, value(exchange.reply) if callable(value) else value)
    if changes and "body" in changes:
        exchange.reply.json = None


def replace_reply(exchange: MutableExchange, replacement: Reply | None) -> Reply | None:
    """Return another response."""
    return replacement


def replace_token(
    exchange: MutableExchange, create_token: Callable[[MutableExchange], str] | None
) -> None:
    """Send another token; None: leave it unchanged."""
    if create_token is not None:
        exchange.token = create_token(exchange)


def sign_with_foreign_key(exchange: MutableExchange, is_foreign: bool) -> None:
    """Sign with an unknown key under the kid of the provider's key."""
    if is_foreign:
        exchange.key = create_signing_key(exchange.header["alg"], kid=exchange.header["kid"])


def tamper_time_claim(name: str) -> TamperFunction:
    """Set a time claim to that many seconds from now."""

    def tamper(exchange: MutableExchange, seconds: Any) -> None:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool):
            exchange.claims[name] = clock.now().timestamp() + seconds
        else:
            tamper_member(name)(exchange, seconds)

    return tamper


def create_token_with_duplicate_member(exchange: MutableExchange) -> str:
    """Return the token with a second `sub` and a valid signature."""
    payload = json.dumps(exchange.claims)
    alg = exchange.header["alg"]
    doubled = f'{payload[:-1]}, "sub": "x"}}'.encode()
    return sign_bytes(
        json.dumps(exchange.header).encode(),
        doubled,
        exchange.key or create_signing_key(alg),
        alg=alg,
    )


def tamper_key_set(jwk_member: str) -> TamperFunction:
    """Change `jwk_member` of all keys, so that no key matches."""

    def tamper(exchange: MutableExchange, is_tampered: bool) -> None:
        if is_tampered:
            for key in exchange.reply.json["keys"]:
                if jwk_member == "use":
                    key[jwk_member] = "enc"
                else:
                    key[jwk_member] = "another"

    return tamper


def replace_jwt_with_json(exchange: MutableExchange, is_tampered: bool) -> None:
    """Send the claims of a signed response as plain JSON."""
    if is_tampered:
        exchange.reply.json = parse_unverified(exchange.reply.body.decode())[1]
        exchange.reply.headers["Content-Type"] = "application/json"


def set_token_lifetime(exchange: MutableExchange, seconds: int) -> None:
    """Set `exp` to that many seconds after `iat`."""
    exchange.claims["exp"] = exchange.claims["iat"] + seconds
