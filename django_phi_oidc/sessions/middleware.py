"""A session ends when it is over, and one that a request has lost has ended: what it held is revoked."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .. import conf
from .._internal import clock
from ..access.no_store import apply_no_store
from ..audit.request_context import SESSION_KEY, Actor, find_oidc_session_id
from .activity import TIMES_KEY, SessionActivity, find_live_session, update_last_seen, update_session_key
from .models import EndReason
from .tasks import end_session_and_revoke
from .timeout_responses import is_passive_request, render_session_ended_response, set_refresh_header

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RevocationMiddleware:
    """Ends a session that is over before anybody sees the request, and one that the request has lost after it.

    It also marks each response in which a claim was revealed, so that nobody keeps it.

    Stands inside SessionMiddleware and AuthenticationMiddleware, outside of whatever may answer. Under ASGI it runs in
    the event loop and goes to a thread only when there is something to read or write. A request without the session
    cookie is not looked at, so public pages get no `Vary: Cookie` from here.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        _discard_invalid_session(request)
        if self.is_async:
            return self._respond_async(request)
        visit = _attach_activity(request) if _has_session_cookie(request) else None
        if visit and _needs_check(visit):
            refused = _check_session(request, visit)
            if refused is not None:
                return refused
        response = cast(HttpResponseBase, self.get_response(request))
        if visit:
            _finish_request(request, visit, response)
        apply_no_store(request, response)
        return response

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        visit = None
        if _has_session_cookie(request):
            # Loads the session, as its engine does that in a coroutine; from here on it is in memory.
            await request.session.aget(SESSION_KEY)
            visit = _attach_activity(request)
        if visit and _needs_check(visit):
            refused = await sync_to_async(_check_session)(request, visit)
            if refused is not None:
                return refused
        response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        if visit:
            if not hasattr(request.session, "_session_cache"):
                # Somebody has begun another one.
                await request.session.aget(SESSION_KEY)
            if _has_changes(request, visit):
                await sync_to_async(_finish_request)(request, visit, response)
            else:
                set_refresh_header(request, visit, response)
        apply_no_store(request, response)
        return response


def _discard_invalid_session(request: HttpRequest) -> None:
    """A cookie can spell NUL (`"\\000"`), and PostgreSQL has none in a text: Django's look-up of it is an error 500."""
    if "\0" in (request.session.session_key or ""):
        request.session = type(request.session)()


def _has_session_cookie(request: HttpRequest) -> bool:
    return settings.SESSION_COOKIE_NAME in request.COOKIES


def _attach_activity(request: HttpRequest) -> SessionActivity | None:
    visit = SessionActivity.from_session(request.session, now=clock.now())
    request.phi_oidc_timing = visit  # type: ignore[attr-defined]  # for the template tag
    return visit


def _needs_check(activity: SessionActivity) -> bool:
    return bool(activity.timeout_reason) or activity.needs_recheck


def _check_session(request: HttpRequest, activity: SessionActivity) -> HttpResponseBase | None:
    """Look at the row where that is due, and end what is over; return the answer to a request that came too late."""
    reason = activity.timeout_reason
    if not reason and activity.session_id is not None:
        row = find_live_session(activity.session_id)
        if row is None:
            reason = EndReason.SESSION_LOST
        elif row.user is None or not row.user.is_active:
            reason = EndReason.USER_INACTIVE
        else:
            activity.update_from_row(row)
            reason = activity.timeout_reason
    if not reason:
        return None
    _end_session(request, activity.session_id, EndReason(reason))
    request.phi_oidc_timing = None  # type: ignore[attr-defined]
    activity.session_id, activity.is_ended = None, True
    return render_session_ended_response(request, reason)


def _end_session(request: HttpRequest, session_id: UUID | None, reason: EndReason) -> None:
    """End the OIDC session, if there is one, and the Django session with it."""
    if session_id is not None:
        end_session_and_revoke(session_id, reason, origin=Actor.from_request(request).origin, now=clock.now())
    auth.logout(request)


def _has_changes(request: HttpRequest, activity: SessionActivity) -> bool:
    """Say whether the end of the request has something to write."""
    session = request.session
    return (
        session.get(SESSION_KEY) != activity.stored_session_id
        or session.session_key != activity.session_key
        or activity.needs_activity_update
        or session.get(TIMES_KEY) != list(activity.times)
    )


def _finish_request(request: HttpRequest, activity: SessionActivity, response: HttpResponseBase) -> None:
    if activity.is_ended:
        return
    if activity.session_id is not None and request.session.get(SESSION_KEY) != activity.stored_session_id:
        reason = EndReason.REPLACED if find_oidc_session_id(request.session) else EndReason.SESSION_LOST
        end_session_and_revoke(activity.session_id, reason, origin=Actor.from_request(request).origin, now=clock.now())
        return
    if auth.SESSION_KEY in request.session:
        _store_changes(request, activity)
        set_refresh_header(request, activity, response)


def _store_changes(request: HttpRequest, activity: SessionActivity) -> None:
    """Write what has changed: the key of the Django session, the last activity, the last look at the row."""
    session = request.session
    lives = True
    if activity.session_id is not None and session.session_key != activity.session_key:
        lives = update_session_key(activity.session_id, django_session_key=str(session.session_key))
    if activity.needs_activity_update and not is_passive_request(request):
        activity.times = activity.times._replace(last_seen_timestamp=activity.now_timestamp)
        if activity.session_id is not None:
            lives = (
                update_last_seen(activity.session_id, now=datetime.fromtimestamp(activity.now_timestamp, UTC)) and lives
            )
    if not lives:
        # It ended while the view ran: what it answers is answered, and nothing after that.
        session.flush()
    elif session.get(TIMES_KEY) != list(activity.times) and (
        conf.session_recheck() or activity.times.last_seen_timestamp == activity.now_timestamp
    ):
        session[TIMES_KEY] = list(activity.times)
