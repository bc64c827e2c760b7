"""The state of a pending sign-in, in an encrypted cookie whose name is derived from `state`.

No session is needed: several tabs do not interfere, and an anonymous visitor gets no session.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse

from .._internal import randomness
from ..crypto import keyring
from ..errors import CallbackError, Code, KeyMissing
from ..replay.cache import mark_used, was_used
from ..sessions.user_logout import STATE_COOKIE_PREFIXES, list_state_cookie_names

STATE_LIFETIME = timedelta(minutes=10)
MAX_PENDING_SIGN_INS = 5
"""Pending sign-ins per browser. The oldest are deleted."""
MAX_COOKIE_BYTES = 4096
"""All encrypted cookies together, which have names with the prefix of the state cookies: servers
refuse requests with a header of 8 KB. The oldest sign-ins are deleted.
"""
SECURE_COOKIE_PREFIX, COOKIE_PREFIX = STATE_COOKIE_PREFIXES
"""Browsers accept a cookie with the first prefix over https only, and for this host only; https
reads no other.
"""
_MAX_COOKIES_READ = 20
_CONTEXT = "pending sign-in"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationState:
    """The data of an authorization request that its response is checked against."""

    provider: str
    nonce: str = field(repr=False)
    code_verifier: str = field(repr=False)
    redirect_uri: str
    next_url: str = field(repr=False)
    started_timestamp: float
    """Seconds since the epoch."""
    session_to_renew: str = ""
    """The id of the OIDC session that a step-up renews; empty for a new sign-in."""
    acr: Sequence[str] = ()
    vot: Sequence[str] = ()
    max_age: int | None = None
    """Seconds."""
    attempt_number: int = 1
    dpop_seed: str = field(default="", repr=False)
    """Of the key that the tokens will be bound to (`oidc.dpop.create_proof_key`); empty without
    DPoP.
    """
    reauthenticates: bool = False
    """The person must authenticate after this request, because the last session of the browser has
    timed out.
    """

    @property
    def started_at(self) -> datetime:
        return datetime.fromtimestamp(self.started_timestamp, UTC)


def create_authorization_state(
    *, provider: str, redirect_uri: str, next_url: str, now: datetime, **optional_fields: Any
) -> AuthorizationState:
    """Return the state of a sign-in that starts now. optional_fields: those of AuthorizationState
    with a default.
    """
    return AuthorizationState(
        provider=provider,
        redirect_uri=redirect_uri,
        next_url=next_url,
        **_create_secrets(now),
        **optional_fields,
    )


def renew_authorization_state(state: AuthorizationState, *, now: datetime) -> AuthorizationState:
    """Return the state of the next attempt of a step-up."""
    return replace(state, **_create_secrets(now), attempt_number=state.attempt_number + 1)


def _create_secrets(now: datetime) -> dict[str, Any]:
    nonce = create_nonce()
    code_verifier = randomness.token_b64url(32)
    return {"nonce": nonce, "code_verifier": code_verifier, "started_timestamp": now.timestamp()}


def create_nonce() -> str:
    """Return 256 random bits and a MAC, which proves without a table that this portal issued the
    nonce.
    """
    random = randomness.token_bytes(32)
    mac = _compute_nonce_mac(keyring.get_keys("encryption")[0], random)
    return base64.urlsafe_b64encode(random + mac).decode("ascii")


def is_issued_nonce(nonce: str) -> bool:
    """Return whether create_nonce() created that nonce, for any sign-in."""
    try:
        raw = base64.urlsafe_b64decode(nonce.encode("ascii"))
    except (ValueError, UnicodeEncodeError):
        return False
    random = raw[:32]
    mac = raw[32:]
    return any(
        hmac.compare_digest(_compute_nonce_mac(key, random), mac)
        for key in keyring.get_keys("encryption")
    )


def store_state(
    response: HttpResponse, request: HttpRequest, state: str, pending: AuthorizationState
) -> None:
    """Set the cookie of the pending sign-in, and delete the oldest ones if there are too many."""
    name = _get_cookie_name(request, state)
    set_encrypted_cookie(
        response, request, name, pending, context=_CONTEXT, lifetime=STATE_LIFETIME
    )


def consume_state(request: HttpRequest, state: str, *, now: datetime) -> AuthorizationState:
    """Return the pending sign-in of that state, and mark it used: once across all processes.

    The mark is committed when this returns, before any request to the provider.
    Raises: StateReplayed, StateUnknown, StateExpired.
    """
    pending = _read_state(request, _get_cookie_name(request, state))
    if (
        pending is None
        or now.timestamp() - pending.started_timestamp > STATE_LIFETIME.total_seconds()
    ):
        if was_used("state", state):
            raise CallbackError(Code.STATE_REPLAYED)
        if pending is None:
            raise CallbackError(Code.STATE_UNKNOWN)
        raise CallbackError(Code.STATE_EXPIRED)
    if not mark_used("state", state, expires_at=now + STATE_LIFETIME):
        raise CallbackError(Code.STATE_REPLAYED)
    return pending


def find_next_url(request: HttpRequest, state: str) -> str:
    """Return next_url of the sign-in of that state, even if expired or used; empty when its cookie
    is unreadable.
    """
    try:
        pending = _read_state(request, _get_cookie_name(request, state))
    except KeyMissing:
        return ""
    return pending.next_url if pending else ""


def delete_state(response: HttpResponse, request: HttpRequest, state: str) -> None:
    """Delete the cookie of that state."""
    response.delete_cookie(_get_cookie_name(request, state), samesite="Lax")


def get_encrypted_cookie_name(request: HttpRequest, name: str) -> str:
    """Return the name with the prefix of cookies that browsers accept over https only, and for this
    host only.
    """
    if request.is_secure():
        return f"__Host-{name}"
    return name


def set_encrypted_cookie(
    response: HttpResponse,
    request: HttpRequest,
    name: str,
    value: Any,
    *,
    context: str,
    lifetime: timedelta,
) -> None:
    """Set a cookie with an encrypted dataclass instance, which only `read_encrypted_cookie` of that
    name decrypts.

    Pending sign-ins are deleted, unreadable ones first, then the oldest, as far as the other
    cookies need the room.
    """
    # A default value takes room, and is the same when the cookie is read.
    values = {}
    for item in fields(value):
        member = getattr(value, item.name)
        if member != item.default:
            values[item.name] = member
    ciphertext = keyring.encrypt(json.dumps(values), context=[context, name])
    response.set_cookie(
        name,
        ciphertext,
        max_age=lifetime,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    _delete_surplus_states(response, request, {name: ciphertext})


def _delete_surplus_states(
    response: HttpResponse, request: HttpRequest, new: dict[str, str]
) -> None:
    if request.is_secure():
        prefix = SECURE_COOKIE_PREFIX
    else:
        prefix = COOKIE_PREFIX

    states = []
    for name in list_state_cookie_names(request):
        if name not in response.cookies and name.startswith(prefix):
            states.append(name)

    # The other cookies that the browser will send, and the new one.
    kept = {}
    for name, text in request.COOKIES.items():
        if name.startswith(prefix) and name not in response.cookies and name not in states:
            kept[name] = text
    kept.update(new)

    bytes_left = MAX_COOKIE_BYTES
    for name, text in kept.items():
        bytes_left -= _count_bytes(name, text)
    count_left = MAX_PENDING_SIGN_INS - 1

    started_at = {}
    for name in states[:_MAX_COOKIES_READ]:
        saved = _read_state(request, name)
        if saved:
            started_at[name] = saved.started_timestamp
        else:
            started_at[name] = 0.0

    for name in sorted(started_at, key=started_at.__getitem__, reverse=True):
        count_left = count_left - 1
        bytes_left = bytes_left - _count_bytes(name, request.COOKIES[name])
        if count_left < 0 or bytes_left < 0:
            response.delete_cookie(name, samesite="Lax")


def _count_bytes(name: str, text: str) -> int:
    """Return the size in a Cookie header, with `=` and `; `."""
    return len(name) + len(text) + 3


def read_encrypted_cookie(
    request: HttpRequest, name: str, cls: type[T], *, context: str
) -> T | None:
    """Return the dataclass instance of that cookie; None when it is missing or unreadable. Raises:
    KeyMissing.
    """
    if (
        value := keyring.decrypt_external(request.COOKIES.get(name, ""), context=[context, name])
    ) is None:
        return None
    try:
        return cls(**json.loads(value))
    except TypeError:
        # TypeError: another release, with other fields, set the cookie.
        return None


def _read_state(request: HttpRequest, cookie_name: str) -> AuthorizationState | None:
    return read_encrypted_cookie(request, cookie_name, AuthorizationState, context=_CONTEXT)


def _get_cookie_name(request: HttpRequest, state: str) -> str:
    if request.is_secure():
        prefix = SECURE_COOKIE_PREFIX
    else:
        prefix = COOKIE_PREFIX
    return prefix + hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _compute_nonce_mac(key: keyring.SymmetricKey, random: bytes) -> bytes:
    return hmac.digest(key.material, b"django_phi_oidc nonce\x00" + random, "sha256")[:16]
