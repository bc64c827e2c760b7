"""How what the provider says is bent: a function of an exchange and a value, so that two values differ in one thing."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..._internal import clock
from ..mock_provider import MutableExchange, Reply, create_signing_key, sign_bytes
from ..mock_provider.signing import parse_unverified

TamperFunction = Callable[[MutableExchange, Any], Reply | str | None]
OMITTED = object()
"""A member left out."""


def tamper_member(name: str) -> TamperFunction:
    """Set, or leave out, one member of a JSON answer or of a token's claims."""

    def bend(exchange: MutableExchange, value: Any) -> None:
        members = exchange.reply.json if exchange.reply.json is not None else exchange.claims
        if value is OMITTED:
            members.pop(name, None)
        else:
            members[name] = value(members) if callable(value) else value

    return bend


def tamper_members(exchange: MutableExchange, values: Mapping[str, Any]) -> None:
    """Set, or leave out, several of them."""
    for name, value in values.items():
        tamper_member(name)(exchange, value)


def tamper_header(name: str) -> TamperFunction:
    """Set one member of a token's header; NO: let it be."""

    def bend(exchange: MutableExchange, value: Any) -> None:
        if value is not OMITTED:
            exchange.header[name] = value

    return bend


def tamper_reply(exchange: MutableExchange, changes: Mapping[str, Any] | None) -> None:
    """Set attributes of the HTTP answer; nothing when there is no change."""
    for name, value in (changes or {}).items():
        if name == "headers":
            exchange.reply.headers.update(value)
        else:
            setattr(exchange.reply, name, value(exchange.reply) if callable(value) else value)
    if changes and "body" in changes:
        exchange.reply.json = None


def replace_reply(exchange: MutableExchange, replacement: Reply | None) -> Reply | None:
    """Give another answer."""
    return replacement


def replace_token(exchange: MutableExchange, create_token: Callable[[MutableExchange], str] | None) -> None:
    """Send another token; None: let it be."""
    if create_token is not None:
        exchange.token = create_token(exchange)


def sign_with_foreign_key(exchange: MutableExchange, is_foreign: bool) -> None:
    """Sign with a key of nobody, under the name of the provider's own."""
    if is_foreign:
        exchange.key = create_signing_key(exchange.header["alg"], kid=exchange.header["kid"])


def tamper_time_claim(name: str) -> TamperFunction:
    """Set a time claim that many seconds from now."""

    def bend(exchange: MutableExchange, seconds: Any) -> None:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool):
            exchange.claims[name] = clock.now().timestamp() + seconds
        else:
            tamper_member(name)(exchange, seconds)

    return bend


def create_token_with_duplicate_member(exchange: MutableExchange) -> str:
    """Return the token with a second `sub`, properly signed."""
    payload = json.dumps(exchange.claims)
    alg = exchange.header["alg"]
    doubled = f'{payload[:-1]}, "sub": "x"}}'.encode()
    return sign_bytes(json.dumps(exchange.header).encode(), doubled, exchange.key or create_signing_key(alg), alg=alg)


def tamper_key_set(jwk_member: str) -> TamperFunction:
    """Let no key in the set fit."""

    def bend(exchange: MutableExchange, wrong: bool) -> None:
        if wrong:
            for key in exchange.reply.json["keys"]:
                key[jwk_member] = "enc" if jwk_member == "use" else "another"

    return bend


def replace_jwt_with_json(exchange: MutableExchange, is_tampered: bool) -> None:
    """Send plainly what was signed."""
    if is_tampered:
        exchange.reply.json = parse_unverified(exchange.reply.body.decode())[1]
        exchange.reply.headers["Content-Type"] = "application/json"


def set_token_lifetime(exchange: MutableExchange, seconds: int) -> None:
    """Let a token live that long, by its own word."""
    exchange.claims["exp"] = exchange.claims["iat"] + seconds
