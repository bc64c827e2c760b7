"""The secrets of the current request, which must not appear elsewhere: in memory until the request ends. No Django.

They are recorded only inside `track_secrets`, which `LeakageGuardMiddleware` uses.
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
"""Characters. Shorter values occur on pages by coincidence."""
SecretLocation = Literal["url", "referer", "request_cookie", "location", "header", "cookie", "body"]


@dataclass(frozen=True)
class Secret:
    """One exact value. Its repr does not show it."""

    kind: str
    """`code`, `state`, `access_token`, `refresh_token`, `id_token` or `claim`."""
    value: str = field(repr=False)
    location: SecretLocation | Literal["anywhere"] | None = None
    """Where in the response the value is expected; `anywhere`: it is masked in logs only."""

    @cached_property
    def encodings(self) -> frozenset[str]:
        """The value as it appears in a message, a repr, a page, JSON and a URL."""
        plain, shown = self.value, repr(self.value)[1:-1]
        urls = quote(plain, safe=""), quote_plus(plain)
        return frozenset({plain, shown, escape(plain), escape(shown), json.dumps(plain)[1:-1], *urls})


# Threads and tasks inherit the dictionary itself, so the request also sees what they register.
_secrets_context: ContextVar[dict[str, Secret] | None] = ContextVar("phi_oidc_secrecy", default=None)


@contextmanager
def track_secrets() -> Iterator[None]:
    """Record secrets in this block; clear them at its end, also for threads and tasks that inherited them."""
    secrets: dict[str, Secret] = {}
    token = _secrets_context.set(secrets)
    try:
        yield
    finally:
        _secrets_context.reset(token)
        secrets.clear()


def register_secret(value: Any, kind: str, *, location: SecretLocation | Literal["anywhere"] | None = None) -> None:
    """Record a value, or each string and number in an object or list. A later location replaces the earlier one.

    Strings and numbers of fewer than MIN_SECRET_LENGTH characters are NOT recorded.
    """
    secrets = _secrets_context.get()
    if secrets is None:
        return
    for text in _iter_texts(value):
        if len(text) >= MIN_SECRET_LENGTH and (location or text not in secrets):
            secrets[text] = Secret(kind, text, location)


def current_secrets() -> Collection[Secret]:
    """Return the secrets that the current request has registered so far."""
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
