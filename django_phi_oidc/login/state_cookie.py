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

from .._internal import randomness
from ..crypto import keyring
from ..errors import KeyMissing, StateExpired, StateReplayed, StateUnknown, Undecryptable
from ..replay.cache import mark_used, was_used
from ..sessions.views import STATE_COOKIE_PREFIXES, list_state_cookie_names

STATE_LIFETIME = timedelta(minutes=10)
MAX_PENDING_SIGN_INS = 5
"""Pending sign-ins in one browser; the oldest goes."""
SECURE_COOKIE_PREFIX, COOKIE_PREFIX = STATE_COOKIE_PREFIXES
"""A browser takes a cookie of the first kind over https alone, for this host alone."""
_MAX_COOKIES_READ = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationState:
    """What must be remembered from the authorization request until its response."""

    provider: str
    nonce: str = field(repr=False)
    code_verifier: str = field(repr=False)
    redirect_uri: str
    next_url: str = field(repr=False)
    started_timestamp: float
    """Seconds since the epoch."""
    session_to_renew: str = ""
    """The OIDC session that this sign-in is to renew; empty: it begins one."""
    acr: Sequence[str] = ()
    max_age: int | None = None
    """Seconds."""
    attempt_number: int = 1

    def is_expired(self, now: datetime) -> bool:
        """Say whether its response comes too late."""
        return now.timestamp() - self.started_timestamp > STATE_LIFETIME.total_seconds()


def create_authorization_state(
    *, provider: str, redirect_uri: str, next_url: str, now: datetime, **step_up_fields: Any
) -> AuthorizationState:
    """Return a sign-in that starts now. renewal: of what it is one, as Pending has it."""
    return AuthorizationState(
        provider=provider,
        nonce=create_nonce(),
        code_verifier=randomness.token_b64url(32),
        redirect_uri=redirect_uri,
        next_url=next_url,
        started_timestamp=now.timestamp(),
        **step_up_fields,
    )


def create_nonce() -> str:
    """Return 256 random bits with a MAC, so that a nonce of ours is known again without a table."""
    random = randomness.token_bytes(32)
    return _encode_b64url(random + _compute_nonce_mac(keyring.get_keys("encryption")[0], random))


def is_issued_nonce(nonce: str) -> bool:
    """Say whether make_nonce() made that nonce, for whichever sign-in."""
    try:
        raw = base64.urlsafe_b64decode(nonce.encode("ascii"))
    except (ValueError, UnicodeEncodeError):
        return False
    random, tag = raw[:32], raw[32:]
    return any(hmac.compare_digest(_compute_nonce_mac(key, random), tag) for key in keyring.get_keys("encryption"))


def store_state(
    response: HttpResponse, request: HttpRequest, state: str, authorization_state: AuthorizationState
) -> None:
    """Put the pending sign-in into the browser, and take the oldest out when there are too many."""
    name = _get_cookie_name(request, state)
    response.set_cookie(
        name,
        keyring.encrypt(json.dumps(asdict(authorization_state)), context=_get_encryption_context(name)),
        max_age=STATE_LIFETIME,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    for stale in _list_surplus_cookies(request):
        delete_state_cookie(response, stale)


def consume_state(request: HttpRequest, state: str, *, now: datetime) -> AuthorizationState:
    """Return the pending sign-in of that state, spent: exactly once across all processes.

    The spending is committed when this returns, before anything is sent to the OP.
    Raises: StateReplayed, StateUnknown, StateExpired.
    """
    name = _get_cookie_name(request, state)
    pending = _decrypt_state(name, request.COOKIES.get(name, ""))
    if pending is None or pending.is_expired(now):
        if was_used("state", state):
            raise StateReplayed
        raise StateUnknown if pending is None else StateExpired
    if not mark_used("state", state, expires_at=now + STATE_LIFETIME):
        raise StateReplayed
    return pending


def find_next_url(request: HttpRequest, state: str) -> str:
    """Return where the pending sign-in of that state was to lead, be it over or spent; empty when none opens."""
    name = _get_cookie_name(request, state)
    try:
        pending = _decrypt_state(name, request.COOKIES.get(name, ""))
    except KeyMissing:
        return ""
    return pending.next_url if pending else ""


def delete_state_cookie(response: HttpResponse, cookie_name: str) -> None:
    """Delete one pending sign-in from the browser."""
    response.delete_cookie(cookie_name, samesite="Lax")


def delete_state(response: HttpResponse, request: HttpRequest, state: str) -> None:
    """Delete the pending sign-in of that state from the browser."""
    delete_state_cookie(response, _get_cookie_name(request, state))


def _list_surplus_cookies(request: HttpRequest) -> list[str]:
    """Return what must go so that one more is at most MOST: the unreadable, then the oldest."""
    found = {
        name: _decrypt_state(name, request.COOKIES[name])
        for name in list_state_cookie_names(request)[:_MAX_COOKIES_READ]
    }
    by_age = sorted(found, key=lambda name: pending.started_timestamp if (pending := found[name]) else 0.0)
    return by_age[: max(0, len(by_age) - (MAX_PENDING_SIGN_INS - 1))]


def _decrypt_state(cookie_name: str, ciphertext: str) -> AuthorizationState | None:
    try:
        return (
            AuthorizationState(**json.loads(keyring.decrypt(ciphertext, context=_get_encryption_context(cookie_name))))
            if ciphertext
            else None
        )
    except (Undecryptable, TypeError):
        # TypeError: another release of ours, which remembered other things, has kept it.
        return None


def _get_cookie_name(request: HttpRequest, state: str) -> str:
    prefix = SECURE_COOKIE_PREFIX if request.is_secure() else COOKIE_PREFIX
    return prefix + hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _get_encryption_context(cookie_name: str) -> list[str]:
    return ["pending sign-in", cookie_name]


def _compute_nonce_mac(key: keyring.SymmetricKey, random: bytes) -> bytes:
    return hmac.digest(key.material, b"django_phi_oidc nonce\x00" + random, "sha256")[:16]


def _encode_b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")
