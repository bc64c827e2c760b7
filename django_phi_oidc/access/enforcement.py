"""The policy enforcement point: run a guarded view, or answer the request in its place.

A sign-in that is too weak or too old leads to a stronger sign-in and back. Spec: RFC 9470.
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
from ..errors import AuditUnavailable, Code
from .decisions import FindObject, authorize, authorize_assurance
from .no_store import mark_response_private
from .policy import SESSION_MISSING, STEP_UP_CODES, AccessPolicy, Assurance
from .responses import format_step_up_challenge, get_sign_in_url, is_navigation, render_problem, set_private_headers
from .step_up import create_step_up_url, get_return_path

GUARD_MARK = "phi_oidc_guards_resource"
"""The attribute of views and permission classes that enforce an access policy: for the system checks."""
logger = logging.getLogger("django_phi_oidc.access")


def enforce_access_policy(
    request: HttpRequest,
    policy: AccessPolicy,
    *,
    resource: Callable[[], str],
    purpose: Callable[[], str],
    find_object: FindObject | None = None,
) -> HttpResponse | None:
    """Return None if the view may run, after the event is committed; otherwise the response in its place.

    No response to the request may be stored, not even a refusal. The functions are called only for a signed-in user; an
    anonymous request is redirected to the sign-in, and is not recorded.
    Raises: PermissionDenied if a browser is refused, so that the host's page is shown.
    """
    mark_response_private(request)

    def find_object_or_none() -> object:
        # The exceptions by which a view says "not found" must not bypass the audit log.
        try:
            return find_object() if find_object else None
        except (Http404, ObjectDoesNotExist, PermissionDenied):
            return None

    def decide(actor: Actor) -> str | None:
        find = find_object and find_object_or_none
        return authorize(actor, policy, resource=resource(), purpose=purpose(), find_object=find, now=clock.now())

    return _enforce(request, policy.assurance, decide)


def enforce_assurance(request: HttpRequest, assurance: Assurance) -> HttpResponse | None:
    """Return None if the sign-in meets the assurance; otherwise the response in the view's place."""
    return _enforce(request, assurance, lambda actor: authorize_assurance(actor, assurance, now=clock.now()))


def set_no_store(response: HttpResponseBase) -> HttpResponseBase:
    """Replace the view's own Cache-Control header."""
    if isinstance(response, HttpResponseBase):
        response["Cache-Control"] = "no-store"
    return response


def redirect_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Redirect a browser to the sign-in; return a problem that contains its URL to a script."""
    if is_navigation(request):
        return set_private_headers(redirect_to_login(request.get_full_path(), get_sign_in_url()))
    title = "A session of the identity provider is needed."
    return render_problem(401, title, code=SESSION_MISSING, sign_in=get_sign_in_url())


def deny(request: HttpRequest) -> HttpResponse:
    """Return a problem to a script. Raises: PermissionDenied for a browser, so that the host's page is shown."""
    if is_navigation(request):
        raise PermissionDenied
    return render_problem(403, "Access is denied.", code="access_denied")


def render_unavailable(request: HttpRequest) -> HttpResponse:
    """Return the page, or the problem for a script, for an unavailable audit log."""
    if is_navigation(request):
        return set_private_headers(render(request, "django_phi_oidc/trail_unavailable.html", status=503))
    return render_problem(503, "Nothing can be shown at the moment.", code=Code.AUDIT_UNAVAILABLE)


def _enforce(request: HttpRequest, assurance: Assurance, decide: Callable[[Actor], str | None]) -> HttpResponse | None:
    """Raises: PermissionDenied for a browser, if another sign-in does not help."""
    actor = Actor.from_request(request)
    if not actor.user.is_authenticated:
        return redirect_to_sign_in(request)
    try:
        refusal = decide(actor)
    except AuditUnavailable as error:
        logger.error("A view was not run: the audit log is unavailable.", exc_info=error)  # noqa: TRY400 -- its cause
        return render_unavailable(request)
    if refusal is None:
        return None
    if refusal == SESSION_MISSING:
        return redirect_to_sign_in(request)
    return _redirect_to_step_up(request, actor, assurance) if refusal in STEP_UP_CODES else deny(request)


def _redirect_to_step_up(request: HttpRequest, actor: Actor, assurance: Assurance) -> HttpResponse:
    """A request body is not sent again after the step-up, so the person gets a page that says this first."""
    is_page, is_safe = is_navigation(request), request.method in ("GET", "HEAD")
    next_url = get_return_path(request, is_safe_navigation=is_page and is_safe)
    url = create_step_up_url(assurance, session_id=actor.origin.session, next_url=next_url, now=clock.now())
    if not url:
        return deny(request)
    if not is_page:
        code, challenge = "insufficient_user_authentication", format_step_up_challenge(assurance)
        return render_problem(401, "A stronger sign-in is needed.", code=code, challenge=challenge, step_up=url)
    if is_safe:
        return set_private_headers(HttpResponseRedirect(url))
    return set_private_headers(render(request, "django_phi_oidc/step_up.html", {"step_up_url": url}, status=403))
