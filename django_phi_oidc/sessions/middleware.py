"""End sessions that have timed out, and sessions that a request has lost, and revoke their
tokens.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib import auth
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .._internal import clock
from .._internal.persistent_connections import list_leaking_aliases
from ..access.no_store import apply_no_store, apply_notice
from ..audit.request_context import SESSION_KEY, Actor, find_oidc_session_id, use_origin
from .activity import (
    TIMES_KEY,
    SessionActivity,
    find_live_session,
    update_session_key,
    use_checked_user,
)
from .models import EndReason
from .refusal_pages import DATABASE_ERRORS, find_outage_response, find_refusal_page
from .request_logout import log_out
from .tasks import end_session_and_revoke
from .timeout_responses import is_passive_request, render_session_ended_response, set_refresh_header

MISPLACED_MESSAGE = (
    "django_phi_oidc.middleware.RevocationMiddleware must come after SessionMiddleware and "
    "AuthenticationMiddleware in MIDDLEWARE: move it to the end."
)
logger = logging.getLogger("django_phi_oidc.sessions")
GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RevocationMiddleware:
    """End a timed-out session before the view runs, and a lost session after the view.

    It also marks responses in which a claim was revealed as not to be stored, adds the notice of 42
    CFR 2.32, attributes changes of roles to the user of the request, and shows the pages of
    refusals.

    Place it inside SessionMiddleware and AuthenticationMiddleware, and outside of everything that
    may respond. Under ASGI it runs in the event loop and uses a thread only for database access.
    Requests without the session cookie are not inspected, so public pages get no `Vary: Cookie`
    from it.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            for alias in list_leaking_aliases():
                logger.warning(
                    "%r has CONN_MAX_AGE under ASGI: each request leaves a connection open (W043).",
                    alias,
                )

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if not hasattr(request, "session") or not hasattr(request, "user"):
            raise ImproperlyConfigured(MISPLACED_MESSAGE)
        # A cookie can contain NUL (`"\000"`), which PostgreSQL text can't: Django's look-up would
        # be an error 500.
        if "\0" in (request.session.session_key or ""):
            request.session = type(request.session)()
        if self.is_async:
            return self._respond_async_or_fail(request)
        try:
            return self._respond(request)
        except DATABASE_ERRORS as error:
            return _respond_to_outage(request, error)

    def _respond(self, request: HttpRequest) -> HttpResponseBase:
        activity = None
        if _has_session_cookie(request):
            activity = _attach_activity(request)

        if activity and activity.needs_check and (refusal := _check_session(request, activity)):
            return refusal

        checked_user = None
        if activity:
            checked_user = activity.checked_user

        with use_origin(lambda: Actor.from_request(request).origin), use_checked_user(checked_user):
            response = cast(HttpResponseBase, self.get_response(request))
        if activity:
            _finish_request(request, activity, response)
        apply_no_store(request, response)
        apply_notice(request, response)
        return response

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Return the page for a refusal of this app; None: Django's or the project's page is
        shown.
        """
        return find_refusal_page(request, exception)

    async def _respond_async_or_fail(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return await self._respond_async(request)
        except DATABASE_ERRORS as error:
            return _respond_to_outage(request, error)

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        activity = None
        if _has_session_cookie(request):
            # Load the session asynchronously; afterwards it is in memory.
            await request.session.aget(SESSION_KEY)
            activity = _attach_activity(request)
        if (
            activity
            and activity.needs_check
            and (refusal := await sync_to_async(_check_session)(request, activity))
        ):
            return refusal

        checked_user = None
        if activity:
            checked_user = activity.checked_user

        with use_origin(lambda: Actor.from_request(request).origin), use_checked_user(checked_user):
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        if activity:
            if not hasattr(request.session, "_session_cache"):
                # The view has started another session.
                await request.session.aget(SESSION_KEY)
            if _has_changes(request, activity):
                await sync_to_async(_finish_request)(request, activity, response)
            else:
                set_refresh_header(request, activity, response)
        apply_no_store(request, response)
        apply_notice(request, response)
        return response


def _respond_to_outage(request: HttpRequest, error: Exception) -> HttpResponseBase:
    if response := find_outage_response(request, error):
        return response
    raise error


def _has_session_cookie(request: HttpRequest) -> bool:
    return settings.SESSION_COOKIE_NAME in request.COOKIES


def _attach_activity(request: HttpRequest) -> SessionActivity | None:
    activity = SessionActivity.from_session(request.session, now=clock.now())
    if activity is not None:
        # The key in the row. It differs from that of the session if a middleware outside of this
        # one has read `request.user`, and Django has cycled the key because SECRET_KEY was rotated.
        activity.session_key = request.COOKIES[settings.SESSION_COOKIE_NAME]
    request.phi_oidc_timing = activity  # type: ignore[attr-defined]  # for the template tag
    return activity


def _check_session(request: HttpRequest, activity: SessionActivity) -> HttpResponseBase | None:
    """Read the row if that is due, and end a session that has timed out; return the response for
    that case.
    """
    reason = activity.timeout_reason
    if activity.session_id is not None and reason != EndReason.ABSOLUTE_TIMEOUT:
        # The row, because another process may have stored a later activity.
        row = find_live_session(activity.session_id)
        if row is None:
            reason = reason or EndReason.SESSION_LOST
        elif row.user is None or not row.user.is_active:
            reason = EndReason.USER_INACTIVE
        else:
            activity.update_from_row(row)
            reason = activity.timeout_reason
    if not reason:
        return None
    log_out(request, EndReason(reason))
    request.phi_oidc_timing = None  # type: ignore[attr-defined]
    return render_session_ended_response(request, reason)


def _has_changes(request: HttpRequest, activity: SessionActivity) -> bool:
    session = request.session
    return (
        session.get(SESSION_KEY) != activity.stored_session_id
        or session.session_key != activity.session_key
        or activity.needs_activity_update
    )


def _finish_request(
    request: HttpRequest, activity: SessionActivity, response: HttpResponseBase
) -> None:
    if activity.is_ended:
        return
    if (
        activity.session_id is not None
        and request.session.get(SESSION_KEY) != activity.stored_session_id
    ):
        if find_oidc_session_id(request.session):
            reason = EndReason.REPLACED
        else:
            reason = EndReason.SESSION_LOST

        end_session_and_revoke(
            activity.session_id, reason, origin=Actor.from_request(request).origin, now=clock.now()
        )
        return
    if auth.SESSION_KEY in request.session:
        _store_changes(request, activity)
        set_refresh_header(request, activity, response)


def _store_changes(request: HttpRequest, activity: SessionActivity) -> None:
    """Store a new key of the Django session, and the last activity."""
    session = request.session
    is_live = True
    if activity.session_id is not None and session.session_key != activity.session_key:
        is_live = update_session_key(
            activity.session_id, django_session_key=str(session.session_key)
        )
    if activity.needs_activity_update and not is_passive_request(request):
        is_live = activity.store(session) and is_live
    elif activity.stored_times is None:
        session[TIMES_KEY] = list(activity.times)
    if not is_live:
        # It ended while the view ran: this response is still sent, but it is the last one.
        session.flush()
