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

from .. import clock
from ..audit.request import Actor
from ..errors import AuditUnavailable
from .answering import challenge, is_navigation, private, problem, sign_in_url
from .guarding import Find, decide, decide_assurance
from .policy import SESSION_MISSING, TOO_WEAK, AccessPolicy, Assurance
from .responding import keep_private
from .stepping import page_of, step_up_url

logger = logging.getLogger("django_phi_oidc.access")


def admit(
    request: HttpRequest,
    policy: AccessPolicy,
    *,
    resource: Callable[[], str],
    purpose: Callable[[], str],
    find: Find | None = None,
) -> HttpResponse | None:
    """Return None when the view may run, which is in the trail by then; else the answer in its place.

    Whatever the response will be, nobody keeps it. The functions are called for somebody who is signed in alone; a
    request of nobody is led to the sign-in, and is no decision.
    Raises: PermissionDenied, for the host's page, to a browser that is refused.
    """
    keep_private(request)
    actor = Actor.from_request(request)
    if not actor.user.is_authenticated:
        return to_sign_in(request)
    try:
        refused = decide(
            actor,
            policy,
            resource=resource(),
            purpose=purpose(),
            find=find and _found_or_none(find),
            now=clock.now(),
        )
    except AuditUnavailable as fault:
        logger.error("A view was not run: the trail can't be written.", exc_info=fault)  # noqa: TRY400 -- its cause
        return unavailable(request)
    return _answer(request, actor, policy.assurance, refused)


def vouch(request: HttpRequest, assurance: Assurance) -> HttpResponse | None:
    """Return None when an OP knew so surely and so lately who asks; else the answer in the view's place."""
    actor = Actor.from_request(request)
    if not actor.user.is_authenticated:
        return to_sign_in(request)
    try:
        refused = decide_assurance(actor, assurance, now=clock.now())
    except AuditUnavailable as fault:
        logger.error("A sign-in was too weak, and the trail can't be written.", exc_info=fault)  # noqa: TRY400
        return unavailable(request)
    return _answer(request, actor, assurance, refused)


def unkept(response: HttpResponseBase) -> HttpResponseBase:
    """Return the view's response with our word on caches in place of its own."""
    if isinstance(response, HttpResponseBase):
        response["Cache-Control"] = "no-store"
    return response


def _found_or_none(find: Find) -> Find:
    """Take every way in which a view says "not here" for one, so that none of them goes past the trail."""

    def found() -> object:
        try:
            return find()
        except (Http404, ObjectDoesNotExist, PermissionDenied):
            return None

    return found


def _answer(request: HttpRequest, actor: Actor, assurance: Assurance, refused: str | None) -> HttpResponse | None:
    """Raises: PermissionDenied, for the host's page, to a browser that no sign-in helps."""
    if refused is None:
        return None
    if refused == SESSION_MISSING:
        return to_sign_in(request)
    return _to_step_up(request, actor, assurance) if refused in TOO_WEAK else refuse(request)


def _to_step_up(request: HttpRequest, actor: Actor, assurance: Assurance) -> HttpResponse:
    """What was sent with the request is not sent again after it, and whoever sent it is told so before."""
    is_page, is_safe = is_navigation(request), request.method in ("GET", "HEAD")
    next_url = page_of(request, is_shown=is_page and is_safe)
    door = step_up_url(assurance, session=actor.origin.session, next_url=next_url, now=clock.now())
    if not door:
        return refuse(request)
    if not is_page:
        told = {"code": "insufficient_user_authentication", "step_up": door}
        return problem(401, "A stronger sign-in is needed.", challenge=challenge(assurance), **told)
    if is_safe:
        return private(HttpResponseRedirect(door))
    return private(render(request, "django_phi_oidc/step_up.html", {"step_up_url": door}, status=403))


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Return the way to the sign-in, and for a script a problem that names it."""
    if is_navigation(request):
        return private(redirect_to_login(request.get_full_path(), sign_in_url()))
    return problem(401, "A session of the identity provider is needed.", code=SESSION_MISSING, sign_in=sign_in_url())


def refuse(request: HttpRequest) -> HttpResponse:
    """Return the refusal for a script. Raises: PermissionDenied, for the host's page, to a browser."""
    if is_navigation(request):
        raise PermissionDenied
    return problem(403, "This is not yours to see.", code="access_denied")


def unavailable(request: HttpRequest) -> HttpResponse:
    """Return the answer for when nothing can be recorded: a page, or a problem for a script."""
    if is_navigation(request):
        return private(render(request, "django_phi_oidc/not_now.html", status=503))
    return problem(503, "Nothing can be shown at the moment.", code=AuditUnavailable.code)
