"""What the request at hand knows and must not tell elsewhere: in memory, in its own context, dropped at its end.

Nothing is kept where nobody asked for it by `keeping`, as `LeakageGuardMiddleware` does. No Django.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any, Literal
from urllib.parse import quote, quote_plus

MIN_SECRET_LENGTH = 5
"""Characters; what is shorter stands on any page by chance."""
SecretLocation = Literal["url", "referer", "request_cookie", "location", "header", "cookie", "body"]


@dataclass(frozen=True)
class Secret:
    """One exact value. Its repr does not show it."""

    kind: str
    """`code`, `state`, `access_token`, `refresh_token`, `id_token` or `claim`."""
    value: str = field(repr=False)
    location: SecretLocation | Literal["anywhere"] | None = None
    """Where in this request's response it belongs; `anywhere`: it is looked for nowhere, and masked in logs."""

    @cached_property
    def encodings(self) -> frozenset[str]:
        """How it looks in a message, a repr, a page, JSON and a URL."""
        plain, shown = self.value, repr(self.value)[1:-1]
        urls = quote(plain, safe=""), quote_plus(plain)
        return frozenset({plain, shown, escape(plain), escape(shown), json.dumps(plain)[1:-1], *urls})


# A dictionary, and not its content, is what a thread or a task inherits: what is learnt there is known here.
_secrets_context: ContextVar[dict[str, Secret] | None] = ContextVar("phi_oidc_secrecy", default=None)


@contextmanager
def track_secrets() -> Iterator[None]:
    """Let `learn` keep what it is told in this block, and forget it at the end, in whatever inherited it too."""
    known: dict[str, Secret] = {}
    token = _secrets_context.set(known)
    try:
        yield
    finally:
        _secrets_context.reset(token)
        known.clear()


def register_secret(value: Any, kind: str, *, location: SecretLocation | Literal["anywhere"] | None = None) -> None:
    """Keep a value, and each text and number in it if it is an object or a list; of the same value, where it belongs.

    Texts and numbers of fewer than SHORTEST characters are NOT kept.
    """
    known = _secrets_context.get()
    if known is None:
        return
    for text in _iter_texts(value):
        if len(text) >= MIN_SECRET_LENGTH and (location or text not in known):
            known[text] = Secret(kind, text, location)


def current_secrets() -> Collection[Secret]:
    """Return what the request at hand has learnt so far."""
    return tuple((_secrets_context.get() or {}).values())


def _iter_texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _iter_texts(item)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield str(value)
