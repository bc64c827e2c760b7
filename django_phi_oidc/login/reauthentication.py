"""Authentication at the provider after a timeout, because single sign-on alone would undo the
automatic logoff.

The same after the user has ended the session from another device.

A cookie names the last session of the browser. Unlike the session cookie, it remains when that
session is gone.
Spec: OIDC Core 3.1.2.1 (prompt, max_age), 3.1.3.7 (13); 45 CFR 164.312(a)(2)(iii).
"""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.http import HttpRequest, HttpResponse

from .. import conf
from .._internal import randomness
from ..audit.request_context import find_oidc_session_id
from ..config.providers import ProviderDeclaration
from ..errors import KeyMissing
from ..oidc.id_token import VerifiedClaims, is_zero, validate_auth_time
from ..provider.registry import Provider
from ..sessions.models import EndReason, OIDCSession
from ..sessions.timeouts import SessionTimes, find_timeout_reason
from .state_cookie import (
    COOKIE_PREFIX,
    AuthorizationState,
    get_encrypted_cookie_name,
    read_encrypted_cookie,
    set_encrypted_cookie,
)

COOKIE_NAME = f"{COOKIE_PREFIX}last_session"
COOKIE_LIFETIME = timedelta(days=400)
"""The longest that browsers accept."""
MAX_AGE_SECONDS = 60
"""Sent so that the provider returns auth_time. Not 0, which some providers treat as absent. The
response is checked against the time of the request, see `validate_reauthentication`.
"""
_CONTEXT = "last session"
_REASONS_TO_AUTHENTICATE = (
    *(EndReason.IDLE_TIMEOUT, EndReason.ABSOLUTE_TIMEOUT),
    *(EndReason.ACCOUNT_OWNER, EndReason.ADMINISTRATOR, EndReason.SECURITY_EVENT),
)
_DEVICE_ATTRIBUTE = "phi_oidc_device"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSession:
    """The last OIDC session that this browser started."""

    session: str
    device: str = field(default="", repr=False)
    """A random id of this browser, for the notice about a new one; empty if no user of it gets
    notices.
    """


def remember_session(response: HttpResponse, request: HttpRequest) -> None:
    """Set the cookie that names the session of the request."""
    if session_id := find_oidc_session_id(request.session):
        name = get_encrypted_cookie_name(request, COOKIE_NAME)
        device = _find_device(request)
        last = LastSession(session=str(session_id), device=device)
        set_encrypted_cookie(
            response, request, name, last, context=_CONTEXT, lifetime=COOKIE_LIFETIME
        )


def get_device(request: HttpRequest) -> str:
    """Return the id of this browser from the cookie, or a new one, which `remember_session` then
    stores in it.
    """
    device = _find_device(request) or randomness.token_b64url(16)
    setattr(request, _DEVICE_ATTRIBUTE, device)
    return device


def _find_device(request: HttpRequest) -> str:
    if device := getattr(request, _DEVICE_ATTRIBUTE, ""):
        return str(device)
    last = read_encrypted_cookie(
        request, get_encrypted_cookie_name(request, COOKIE_NAME), LastSession, context=_CONTEXT
    )
    return last.device if last else ""


def is_reauthentication_due(
    request: HttpRequest, *, declaration: ProviderDeclaration, now: datetime
) -> bool:
    """Return whether the last session of this browser has timed out, was ended elsewhere, or is
    unknown.

    Elsewhere: by its user on another device, by an administrator, or by a security event of the
    provider. The session at the provider may still be live on a device that its user has lost. Not
    if the provider is exempt.
    """
    name = get_encrypted_cookie_name(request, COOKIE_NAME)
    if declaration.reauthentication == "never" or name not in request.COOKIES:
        return False
    try:
        last = read_encrypted_cookie(request, name, LastSession, context=_CONTEXT)
    except KeyMissing:
        last = None
    rows = OIDCSession.objects.only("started_at", "last_seen_at", "end_reason")

    row = None
    if last:
        row = rows.filter(pk=last.session).first()

    return row is None or _needs_authentication(row, now=now)


def request_reauthentication(provider: Provider) -> Provider:
    """Return the provider for an authorization request after a timeout, with max_age if auth_time
    is verified.
    """
    declaration = provider.declaration
    if declaration.reauthentication != "verify":
        return provider
    ages = []
    for age in (MAX_AGE_SECONDS, declaration.max_age):
        if age is not None:
            ages.append(age)
    return provider.with_declaration(replace(declaration, max_age=min(ages)))


def validate_reauthentication(
    claims: VerifiedClaims,
    *,
    declaration: ProviderDeclaration,
    pending: AuthorizationState,
    now: datetime,
) -> None:
    """Require that the person authenticated after the authorization request, if it asked for that.

    Raises: IDTokenError (`auth_time_missing`, `auth_time_stale`). Spec: Core 3.1.3.7 (13).
    """
    if not pending.reauthenticates or declaration.reauthentication != "verify":
        return
    if declaration.allow_auth_time_zero and is_zero(claims.get("auth_time")):
        return
    # Rounded up, because auth_time usually has whole seconds.
    max_age = math.ceil(now.timestamp() - pending.started_timestamp)
    validate_auth_time(claims, max_age=max_age, now=now, leeway=declaration.leeway)


def _needs_authentication(row: OIDCSession, *, now: datetime) -> bool:
    if row.end_reason in _REASONS_TO_AUTHENTICATE:
        return True
    if row.end_reason not in ("", EndReason.SESSION_LOST, EndReason.PARALLEL_LIMIT):
        return False
    # No worker has ended it yet, or its Django session expired first, or a sign-in in another
    # browser ended it.
    return bool(
        find_timeout_reason(
            SessionTimes(row.started_at.timestamp(), row.last_seen_at.timestamp(), 0.0),
            now_timestamp=now.timestamp(),
            idle_timeout_seconds=conf.idle_timeout().total_seconds(),
            absolute_timeout_seconds=conf.absolute_timeout().total_seconds(),
        )
    )
