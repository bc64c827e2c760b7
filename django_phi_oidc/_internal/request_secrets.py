"""The secrets of the current request or task, which must not appear elsewhere: in memory until it
ends. No Django.

They are recorded inside `track_secrets`, and between `start_tracking` and `stop_tracking`.
Elsewhere, as in a command of the host project, only the fact that a claim was revealed is recorded.
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

CLAIM = "claim"
"""The kind of a revealed claim, or of one received at a sign-in."""
MIN_SECRET_LENGTH = 5
"""Characters. Shorter values occur on pages by coincidence."""
SecretLocation = Literal["url", "referer", "request_cookie", "location", "header", "cookie", "body"]


@dataclass(frozen=True)
class Secret:
    """One exact value. Its repr does not show it."""

    kind: str
    """`code`, `state`, `access_token`, `refresh_token`, `id_token`, `dpop_seed` or `claim`."""
    value: str = field(repr=False)
    location: SecretLocation | Literal["anywhere"] | None = None
    """Where in the response the value is expected; `anywhere`: it is masked in logs only."""

    @cached_property
    def encodings(self) -> frozenset[str]:
        """The value as it appears in a message, a repr, a page, JSON and a URL."""
        plain = self.value
        shown = repr(self.value)[1:-1]
        urls = quote(plain, safe=""), quote_plus(plain)
        return frozenset(
            {plain, shown, escape(plain), escape(shown), json.dumps(plain)[1:-1], *urls}
        )


@dataclass(slots=True)
class _Tracker:
    secrets: dict[str, Secret] = field(default_factory=dict)
    records_values: bool = True
    has_claims: bool = False
    """Whether a claim was revealed, or received at a sign-in."""


# Threads and tasks inherit the object itself, so the request also sees what they register.
_tracker_context: ContextVar[_Tracker | None] = ContextVar("phi_oidc_secrecy", default=None)


@contextmanager
def track_secrets() -> Iterator[None]:
    """Record secrets in this block; clear them at its end, also for threads and tasks that
    inherited them.
    """
    outer = _tracker_context.get()
    tracker = _Tracker()
    token = _tracker_context.set(tracker)
    try:
        yield
    finally:
        _tracker_context.reset(token)
        tracker.secrets.clear()
        if outer is not None:
            outer.has_claims |= tracker.has_claims


def start_tracking() -> None:
    """Record secrets from here on in this context, until `stop_tracking`; forget those of earlier
    work.
    """
    stop_tracking()
    _tracker_context.set(_Tracker())


def stop_tracking() -> None:
    """Clear the recorded secrets."""
    if (tracker := _tracker_context.get()) is not None:
        tracker.secrets.clear()
    _tracker_context.set(None)


def register_secret(
    value: Any, kind: str, *, location: SecretLocation | Literal["anywhere"] | None = None
) -> None:
    """Record a value, or each string and number in an object or list. A later location replaces the
    earlier one.

    Strings and numbers of fewer than MIN_SECRET_LENGTH characters are NOT recorded.
    """
    tracker = _tracker_context.get()
    if kind == CLAIM:
        if tracker is None:
            _tracker_context.set(tracker := _Tracker(records_values=False))
        tracker.has_claims = True
    if tracker is None or not tracker.records_values:
        return
    secrets = tracker.secrets
    for text in _iter_texts(value):
        if len(text) >= MIN_SECRET_LENGTH and (location or text not in secrets):
            secrets[text] = Secret(kind, text, location)


def current_secrets() -> Collection[Secret]:
    """Return the secrets that the current request has registered so far."""
    tracker = _tracker_context.get()
    if tracker is not None:
        return tuple(tracker.secrets.values())
    return ()


def has_revealed_claims() -> bool:
    """Return whether a claim was revealed, or received at a sign-in, in this request, task or
    thread.
    """
    tracker = _tracker_context.get()
    return tracker is not None and tracker.has_claims


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
