"""A request that began with an OIDC session and ends without it has ended that session."""

from collections.abc import Awaitable, Callable
from typing import cast
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .. import clock
from ..audit.request import SESSION_KEY, Actor, session_id_of
from .ending import end_session
from .models import EndReason
from .tasks import revoke_soon

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RevocationMiddleware:
    """Ends the session, and revokes its tokens, whichever way the request lost it. Stands inside SessionMiddleware.

    Under ASGI it runs in the event loop and goes to a thread only when there is something to end. A request without
    the session cookie is not looked at, so public pages get no `Vary: Cookie` from here.
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
        before = session_id_of(request.session) if _has_session_cookie(request) else None
        response = cast(HttpResponseBase, self.get_response(request))
        if before:
            after = session_id_of(request.session)
            if after != before:
                _end(request, before, replaced=bool(after))
        return response

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        before = await _asession_id_of(request) if _has_session_cookie(request) else None
        response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        if before:
            after = await _asession_id_of(request)
            if after != before:
                await sync_to_async(_end)(request, before, replaced=bool(after))
        return response


def _leave_impossible_session(request: HttpRequest) -> None:
    """A cookie can spell NUL (`"\\000"`), and PostgreSQL has none in a text: Django's look-up of it is an error 500."""
    if "\0" in (request.session.session_key or ""):
        request.session = type(request.session)()


def _has_session_cookie(request: HttpRequest) -> bool:
    return settings.SESSION_COOKIE_NAME in request.COOKIES


async def _asession_id_of(request: HttpRequest) -> UUID | None:
    return session_id_of({SESSION_KEY: await request.session.aget(SESSION_KEY)})


def _end(request: HttpRequest, session_id: UUID, *, replaced: bool) -> None:
    reason = EndReason.REPLACED if replaced else EndReason.SESSION_LOST
    origin = Actor.from_request(request).origin
    ended = end_session(session_id, reason, origin=origin, now=clock.now())
    if ended:
        revoke_soon(ended.revocations)
