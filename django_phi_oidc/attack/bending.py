"""How what the provider says is bent: a function of an exchange and a value, so that two values differ in one thing."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from .. import clock
from .op import Exchange, Reply, make_key, sign_bytes
from .op.signing import unverified

Bend = Callable[[Exchange, Any], Reply | str | None]
NO = object()
"""A member left out."""


def member(name: str) -> Bend:
    """Set, or leave out, one member of a JSON answer or of a token's claims."""

    def bend(exchange: Exchange, value: Any) -> None:
        members = exchange.reply.json if exchange.reply.json is not None else exchange.claims
        if value is NO:
            members.pop(name, None)
        else:
            members[name] = value(members) if callable(value) else value

    return bend


def members(exchange: Exchange, values: Mapping[str, Any]) -> None:
    """Set, or leave out, several of them."""
    for name, value in values.items():
        member(name)(exchange, value)


def header(name: str) -> Bend:
    """Set one member of a token's header; NO: let it be."""

    def bend(exchange: Exchange, value: Any) -> None:
        if value is not NO:
            exchange.header[name] = value

    return bend


def reply(exchange: Exchange, change: Mapping[str, Any] | None) -> None:
    """Set attributes of the HTTP answer; nothing when there is no change."""
    for name, value in (change or {}).items():
        if name == "headers":
            exchange.reply.headers.update(value)
        else:
            setattr(exchange.reply, name, value(exchange.reply) if callable(value) else value)
    if change and "body" in change:
        exchange.reply.json = None


def instead(exchange: Exchange, answer: Reply | None) -> Reply | None:
    """Give another answer."""
    return answer


def token(exchange: Exchange, make: Callable[[Exchange], str] | None) -> None:
    """Send another token; None: let it be."""
    if make is not None:
        exchange.token = make(exchange)


def signed_by(exchange: Exchange, foreign: bool) -> None:
    """Sign with a key of nobody, under the name of the provider's own."""
    if foreign:
        exchange.key = make_key(exchange.header["alg"], kid=exchange.header["kid"])


def timing(name: str) -> Bend:
    """Set a time claim that many seconds from now."""

    def bend(exchange: Exchange, seconds: Any) -> None:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool):
            exchange.claims[name] = clock.now().timestamp() + seconds
        else:
            member(name)(exchange, seconds)

    return bend


def duplicate_member(exchange: Exchange) -> str:
    """Return the token with a second `sub`, properly signed."""
    payload = json.dumps(exchange.claims)
    alg = exchange.header["alg"]
    doubled = f'{payload[:-1]}, "sub": "x"}}'.encode()
    return sign_bytes(json.dumps(exchange.header).encode(), doubled, exchange.key or make_key(alg), alg=alg)


def keyset(change: str) -> Bend:
    """Let no key in the set fit."""

    def bend(exchange: Exchange, wrong: bool) -> None:
        if wrong:
            for key in exchange.reply.json["keys"]:
                key[change] = "enc" if change == "use" else "another"

    return bend


def unsigned(exchange: Exchange, wrong: bool) -> None:
    """Send plainly what was signed."""
    if wrong:
        exchange.reply.json = unverified(exchange.reply.body.decode())[1]
        exchange.reply.headers["Content-Type"] = "application/json"


def lifetime(exchange: Exchange, seconds: int) -> None:
    """Let a token live that long, by its own word."""
    exchange.claims["exp"] = exchange.claims["iat"] + seconds
