"""Who asks for a guarded view is let in, or gets the answer that is theirs: the rule that refused is in the trail.

Who was signed in too weakly or too long ago is led to a stronger sign-in and back. Spec: RFC 9470.
"""

import logging
from collections.abc import Callable

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render

from .._internal import clock
from ..audit.request_context import Actor
from ..errors import AuditUnavailable
from .decisions import FindObject, authorize, authorize_assurance
from .no_store import mark_response_private
from .policy import SESSION_MISSING, STEP_UP_CODES, AccessPolicy, Assurance
from .responses import format_step_up_challenge, get_sign_in_url, is_navigation, render_problem, set_private_headers
from .step_up import create_step_up_url, get_return_path

logger = logging.getLogger("django_phi_oidc.access")


def enforce_access_policy(
    request: HttpRequest,
    policy: AccessPolicy,
    *,
    resource: Callable[[], str],
    purpose: Callable[[], str],
    find_object: FindObject | None = None,
) -> HttpResponse | None:
    """Return None when the view may run, which is in the trail by then; else the answer in its place.

    Whatever the response will be, nobody keeps it. The functions are called for somebody who is signed in alone; a
    request of nobody is led to the sign-in, and is no decision.
    Raises: PermissionDenied, for the host's page, to a browser that is refused.
    """
    mark_response_private(request)
    actor = Actor.from_request(request)
    if not actor.user.is_authenticated:
        return redirect_to_sign_in(request)
    try:
        refused = authorize(
            actor,
            policy,
            resource=resource(),
            purpose=purpose(),
            find_object=find_object and _treat_errors_as_missing(find_object),
            now=clock.now(),
        )
    except AuditUnavailable as fault:
        logger.error("A view was not run: the trail can't be written.", exc_info=fault)  # noqa: TRY400 -- its cause
        return render_unavailable(request)
    return _render_refusal(request, actor, policy.assurance, refused)


def enforce_assurance(request: HttpRequest, assurance: Assurance) -> HttpResponse | None:
    """Return None when an OP knew so surely and so lately who asks; else the answer in the view's place."""
    actor = Actor.from_request(request)
    if not actor.user.is_authenticated:
        return redirect_to_sign_in(request)
    try:
        refused = authorize_assurance(actor, assurance, now=clock.now())
    except AuditUnavailable as fault:
        logger.error("A sign-in was too weak, and the trail can't be written.", exc_info=fault)  # noqa: TRY400
        return render_unavailable(request)
    return _render_refusal(request, actor, assurance, refused)


def set_no_store(response: HttpResponseBase) -> HttpResponseBase:
    """Return the view's response with our word on caches in place of its own."""
    if isinstance(response, HttpResponseBase):
        response["Cache-Control"] = "no-store"
    return response


def _treat_errors_as_missing(find_object: FindObject) -> FindObject:
    """Take every way in which a view says "not here" for one, so that none of them goes past the trail."""

    def found() -> object:
        try:
            return find_object()
        except (Http404, ObjectDoesNotExist, PermissionDenied):
            return None

    return found


def _render_refusal(
    request: HttpRequest, actor: Actor, assurance: Assurance, refusal_code: str | None
) -> HttpResponse | None:
    """Raises: PermissionDenied, for the host's page, to a browser that no sign-in helps."""
    if refusal_code is None:
        return None
    if refusal_code == SESSION_MISSING:
        return redirect_to_sign_in(request)
    return _redirect_to_step_up(request, actor, assurance) if refusal_code in STEP_UP_CODES else deny(request)


def _redirect_to_step_up(request: HttpRequest, actor: Actor, assurance: Assurance) -> HttpResponse:
    """What was sent with the request is not sent again after it, and whoever sent it is told so before."""
    is_page, is_safe = is_navigation(request), request.method in ("GET", "HEAD")
    next_url = get_return_path(request, is_safe_navigation=is_page and is_safe)
    door = create_step_up_url(assurance, session_id=actor.origin.session, next_url=next_url, now=clock.now())
    if not door:
        return deny(request)
    if not is_page:
        told = {"code": "insufficient_user_authentication", "step_up": door}
        return render_problem(
            401, "A stronger sign-in is needed.", challenge=format_step_up_challenge(assurance), **told
        )
    if is_safe:
        return set_private_headers(HttpResponseRedirect(door))
    return set_private_headers(render(request, "django_phi_oidc/step_up.html", {"step_up_url": door}, status=403))


def redirect_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Return the way to the sign-in, and for a script a problem that names it."""
    if is_navigation(request):
        return set_private_headers(redirect_to_login(request.get_full_path(), get_sign_in_url()))
    return render_problem(
        401, "A session of the identity provider is needed.", code=SESSION_MISSING, sign_in=get_sign_in_url()
    )


def deny(request: HttpRequest) -> HttpResponse:
    """Return the refusal for a script. Raises: PermissionDenied, for the host's page, to a browser."""
    if is_navigation(request):
        raise PermissionDenied
    return render_problem(403, "This is not yours to see.", code="access_denied")


def render_unavailable(request: HttpRequest) -> HttpResponse:
    """Return the answer for when nothing can be recorded: a page, or a problem for a script."""
    if is_navigation(request):
        return set_private_headers(render(request, "django_phi_oidc/not_now.html", status=503))
    return render_problem(503, "Nothing can be shown at the moment.", code=AuditUnavailable.code)
