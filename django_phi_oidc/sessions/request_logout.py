"""Log the user of a request out: the OIDC session with its tokens, then the Django session."""

from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.http import HttpRequest

from .._internal import clock
from ..audit.request_context import SESSION_KEY, Actor, find_oidc_session_id
from .lifecycle import EndedSession
from .models import EndReason
from .tasks import INLINE_SECONDS, end_session_and_revoke


def log_out(
    request: HttpRequest, reason: EndReason, *, budget_seconds: float = INLINE_SECONDS
) -> EndedSession | None:
    """End the session of the request, and revoke its tokens; return the OIDC session. None: it has
    none any more.

    budget_seconds: for all calls to the provider together.
    """
    session: Any = request.session
    session_id = find_oidc_session_id(session)
    ended = None
    if session_id:
        origin = Actor.from_request(request).origin
        ended = end_session_and_revoke(
            session_id, reason, origin=origin, now=clock.now(), budget_seconds=budget_seconds
        )
        # Prevents that the logout signal and the middleware end it again.
        del session[SESSION_KEY]
        if activity := getattr(request, "phi_oidc_timing", None):
            activity.is_ended = True
    is_deleted = ended is not None and ended.django_session_key == session.session_key
    if is_deleted and type(session) is DatabaseStore:
        # The transaction of the end has deleted the row. Django would look for it.
        session.delete = lambda session_key=None: None  # type: ignore[method-assign]  # of this object only
    try:
        auth.logout(request)
    finally:
        vars(session).pop("delete", None)
    return ended
