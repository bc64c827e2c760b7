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

from .. import clock, conf
from ..access.responding import mark
from ..audit.request import SESSION_KEY, Actor, session_id_of
from .attending import look, mark_active, rekey
from .models import EndReason
from .refusing import is_passive, overdue_response, tell_when_to_leave
from .tasks import end_at_once
from .visiting import TIMES_KEY, Visit

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
        _leave_impossible_session(request)
        if self.is_async:
            return self._respond(request)
        visit = _begin(request) if _has_session_cookie(request) else None
        if visit and _is_due(visit):
            refused = _settle(request, visit)
            if refused is not None:
                return refused
        response = cast(HttpResponseBase, self.get_response(request))
        if visit:
            _finish(request, visit, response)
        mark(request, response)
        return response

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        visit = None
        if _has_session_cookie(request):
            # Loads the session, as its engine does that in a coroutine; from here on it is in memory.
            await request.session.aget(SESSION_KEY)
            visit = _begin(request)
        if visit and _is_due(visit):
            refused = await sync_to_async(_settle)(request, visit)
            if refused is not None:
                return refused
        response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        if visit:
            if not hasattr(request.session, "_session_cache"):
                # Somebody has begun another one.
                await request.session.aget(SESSION_KEY)
            if _is_changed(request, visit):
                await sync_to_async(_finish)(request, visit, response)
            else:
                tell_when_to_leave(request, visit, response)
        mark(request, response)
        return response


def _leave_impossible_session(request: HttpRequest) -> None:
    """A cookie can spell NUL (`"\\000"`), and PostgreSQL has none in a text: Django's look-up of it is an error 500."""
    if "\0" in (request.session.session_key or ""):
        request.session = type(request.session)()


def _has_session_cookie(request: HttpRequest) -> bool:
    return settings.SESSION_COOKIE_NAME in request.COOKIES


def _begin(request: HttpRequest) -> Visit | None:
    visit = Visit.of(request.session, now=clock.now())
    request.phi_oidc_timing = visit  # type: ignore[attr-defined]  # for the template tag
    return visit


def _is_due(visit: Visit) -> bool:
    return bool(visit.reason) or visit.must_look


def _settle(request: HttpRequest, visit: Visit) -> HttpResponseBase | None:
    """Look at the row where that is due, and end what is over; return the answer to a request that came too late."""
    reason = visit.reason
    if not reason and visit.session_id is not None:
        row = look(visit.session_id)
        if row is None:
            reason = EndReason.SESSION_LOST
        elif row.user is None or not row.user.is_active:
            reason = EndReason.USER_INACTIVE
        else:
            visit.looked_at(row)
            reason = visit.reason
    if not reason:
        return None
    _end(request, visit.session_id, EndReason(reason))
    request.phi_oidc_timing = None  # type: ignore[attr-defined]
    visit.session_id, visit.is_over = None, True
    return overdue_response(request, reason)


def _end(request: HttpRequest, session_id: UUID | None, reason: EndReason) -> None:
    """End the OIDC session, if there is one, and the Django session with it."""
    if session_id is not None:
        end_at_once(session_id, reason, origin=Actor.from_request(request).origin, now=clock.now())
    auth.logout(request)


def _is_changed(request: HttpRequest, visit: Visit) -> bool:
    """Say whether the end of the request has something to write."""
    session = request.session
    return (
        session.get(SESSION_KEY) != visit.named
        or session.session_key != visit.session_key
        or visit.is_noted
        or session.get(TIMES_KEY) != list(visit.times)
    )


def _finish(request: HttpRequest, visit: Visit, response: HttpResponseBase) -> None:
    if visit.is_over:
        return
    if visit.session_id is not None and request.session.get(SESSION_KEY) != visit.named:
        reason = EndReason.REPLACED if session_id_of(request.session) else EndReason.SESSION_LOST
        end_at_once(visit.session_id, reason, origin=Actor.from_request(request).origin, now=clock.now())
        return
    if auth.SESSION_KEY in request.session:
        _note(request, visit)
        tell_when_to_leave(request, visit, response)


def _note(request: HttpRequest, visit: Visit) -> None:
    """Write what has changed: the key of the Django session, the last activity, the last look at the row."""
    session = request.session
    lives = True
    if visit.session_id is not None and session.session_key != visit.session_key:
        lives = rekey(visit.session_id, django_session_key=str(session.session_key))
    if visit.is_noted and not is_passive(request):
        visit.times = visit.times._replace(seen=visit.now)
        if visit.session_id is not None:
            lives = mark_active(visit.session_id, now=datetime.fromtimestamp(visit.now, UTC)) and lives
    if not lives:
        # It ended while the view ran: what it answers is answered, and nothing after that.
        session.flush()
    elif session.get(TIMES_KEY) != list(visit.times) and (conf.session_recheck() or visit.times.seen == visit.now):
        session[TIMES_KEY] = list(visit.times)
