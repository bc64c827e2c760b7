"""A sign-in on its way: one sealed cookie, named after its `state`. Nothing of it lies in the session store.

Several tabs do not meet, and an anonymous visitor gets no session.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse

from .. import entropy, keyring
from ..errors import KeyMissing, StateExpired, StateReplayed, StateUnknown, Undecryptable
from ..replay.spending import spend, was_spent
from ..sessions.views import PENDING_PREFIXES, pending_cookies

LIFETIME = timedelta(minutes=10)
MOST = 5
"""Pending sign-ins in one browser; the oldest goes."""
SECURE_PREFIX, PREFIX = PENDING_PREFIXES
"""A browser takes a cookie of the first kind over https alone, for this host alone."""
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What must be remembered from the authorization request until its response."""

    provider: str
    nonce: str = field(repr=False)
    code_verifier: str = field(repr=False)
    redirect_uri: str
    next_url: str = field(repr=False)
    started_at: float
    """Seconds since the epoch."""
    renews: str = ""
    """The OIDC session that this sign-in is to renew; empty: it begins one."""
    acr: Sequence[str] = ()
    max_age: int | None = None
    """Seconds."""
    attempt: int = 1

    def is_over(self, now: datetime) -> bool:
        """Say whether its response comes too late."""
        return now.timestamp() - self.started_at > LIFETIME.total_seconds()


def start(*, provider: str, redirect_uri: str, next_url: str, now: datetime, **renewal: Any) -> Pending:
    """Return a sign-in that starts now. renewal: of what it is one, as Pending has it."""
    return Pending(
        provider=provider,
        nonce=make_nonce(),
        code_verifier=entropy.token_b64url(32),
        redirect_uri=redirect_uri,
        next_url=next_url,
        started_at=now.timestamp(),
        **renewal,
    )


def make_nonce() -> str:
    """Return 256 random bits with a MAC, so that a nonce of ours is known again without a table."""
    random = entropy.token_bytes(32)
    return _b64url(random + _nonce_tag(keyring.keys("ENCRYPTION_KEYS")[0], random))


def issued_nonce(nonce: str) -> bool:
    """Say whether make_nonce() made that nonce, for whichever sign-in."""
    try:
        raw = base64.urlsafe_b64decode(nonce.encode("ascii"))
    except (ValueError, UnicodeEncodeError):
        return False
    random, tag = raw[:32], raw[32:]
    return any(hmac.compare_digest(_nonce_tag(key, random), tag) for key in keyring.keys("ENCRYPTION_KEYS"))


def keep(response: HttpResponse, request: HttpRequest, state: str, pending: Pending) -> None:
    """Put the pending sign-in into the browser, and take the oldest out when there are too many."""
    name = _name(request, state)
    response.set_cookie(
        name,
        keyring.seal(json.dumps(asdict(pending)), context=_context(name)),
        max_age=LIFETIME,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    for stale in _surplus(request):
        forget(response, stale)


def take(request: HttpRequest, state: str, *, now: datetime) -> Pending:
    """Return the pending sign-in of that state, spent: exactly once across all processes.

    The spending is committed when this returns, before anything is sent to the OP.
    Raises: StateReplayed, StateUnknown, StateExpired.
    """
    name = _name(request, state)
    pending = _open(name, request.COOKIES.get(name, ""))
    if pending is None or pending.is_over(now):
        if was_spent("state", state):
            raise StateReplayed
        raise StateUnknown if pending is None else StateExpired
    if not spend("state", state, until=now + LIFETIME):
        raise StateReplayed
    return pending


def next_of(request: HttpRequest, state: str) -> str:
    """Return where the pending sign-in of that state was to lead, be it over or spent; empty when none opens."""
    name = _name(request, state)
    try:
        pending = _open(name, request.COOKIES.get(name, ""))
    except KeyMissing:
        return ""
    return pending.next_url if pending else ""


def forget(response: HttpResponse, name: str) -> None:
    """Delete one pending sign-in from the browser."""
    response.delete_cookie(name, samesite="Lax")


def forget_state(response: HttpResponse, request: HttpRequest, state: str) -> None:
    """Delete the pending sign-in of that state from the browser."""
    forget(response, _name(request, state))


def _surplus(request: HttpRequest) -> list[str]:
    """Return what must go so that one more is at most MOST: the unreadable, then the oldest."""
    found = {name: _open(name, request.COOKIES[name]) for name in pending_cookies(request)[:_LOOKED_AT]}
    by_age = sorted(found, key=lambda name: pending.started_at if (pending := found[name]) else 0.0)
    return by_age[: max(0, len(by_age) - (MOST - 1))]


def _open(name: str, text: str) -> Pending | None:
    try:
        return Pending(**json.loads(keyring.open_sealed(text, context=_context(name)))) if text else None
    except (Undecryptable, TypeError):
        # TypeError: another release of ours, which remembered other things, has kept it.
        return None


def _name(request: HttpRequest, state: str) -> str:
    prefix = SECURE_PREFIX if request.is_secure() else PREFIX
    return prefix + hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _context(name: str) -> list[str]:
    return ["pending sign-in", name]


def _nonce_tag(key: keyring.Key, random: bytes) -> bytes:
    return hmac.digest(key.material, b"django_phi_oidc nonce\x00" + random, "sha256")[:16]


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")
