"""The policy enforcement point: run a guarded view, or answer the request in its place.

A sign-in that is too weak or too old leads to a stronger sign-in and back. Spec: RFC 9470.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from .. import conf
from .._internal import clock
from ..audit.request_context import Actor
from ..errors import AuditUnavailable, Code
from .decisions import FindObject, authorize, authorize_assurance
from .emergency.queries import can_open_any
from .no_store import mark_response_private
from .policy import EMERGENCY_MISSING, SESSION_MISSING, STEP_UP_CODES, AccessPolicy, Assurance
from .responses import format_step_up_challenge, get_sign_in_url, is_navigation, render_problem, set_private_headers
from .step_up import create_step_up_url, get_return_path

GUARD_MARK = "phi_oidc_guards_resource"
"""The attribute that marks views and permission classes that enforce an access policy, for the system checks."""
logger = logging.getLogger("django_phi_oidc.access")
NOT_FOUND_ERRORS = (Http404, ObjectDoesNotExist, PermissionDenied)
"""The ways in which a view reports a missing object. Each must lead to a refusal with an event."""
Found = TypeVar("Found")
ViewCallable = TypeVar("ViewCallable", bound=Callable[..., Any])
_GRANTED_ATTRIBUTE = "_phi_oidc_granted"


def enforce_access_policy(
    request: HttpRequest,
    policy: AccessPolicy,
    *,
    resource: Callable[[], str],
    purpose: Callable[[], str],
    find_object: FindObject | None = None,
    consent: Callable[[], str] | None = None,
) -> HttpResponse | None:
    """Return None if the view may run, after the event is committed; otherwise the response in its place.

    No response to the request may be stored, not even a refusal. The functions are called only for a signed-in user; an
    anonymous request is redirected to the sign-in, and is not recorded. A local account without an open emergency for
    the resource gets a page that says how to open one.
    Raises: PermissionDenied if a browser is refused, so that the host's page is shown.
    """
    mark_response_private(request)

    def decide(actor: Actor) -> str | None:
        return authorize(
            actor,
            policy,
            resource=resource(),
            purpose=purpose(),
            find_object=find_object and suppress_not_found(find_object, missing=None),
            now=clock.now(),
            find_consent=consent and suppress_not_found(consent, missing=""),
        )

    return _mark_grant(request, _enforce(request, policy.assurance, decide, resource=resource))


def suppress_not_found(
    find: Callable[[], Found], *, missing: Found, errors: tuple[type[Exception], ...] = NOT_FOUND_ERRORS
) -> Callable[[], Found]:
    """Return find, but with the result missing instead of its errors, which must not bypass the audit log."""

    def find_or_missing() -> Found:
        try:
            return find()
        except errors:
            return missing

    return find_or_missing


def enforce_assurance(
    request: HttpRequest, assurance: Assurance, *, records_grant: bool = False
) -> HttpResponse | None:
    """Return None if the sign-in meets the assurance; otherwise the response that replaces that of the view.

    records_grant: a grant is recorded, unless an outer guard has recorded one for this request. No response may be
    stored, because a stored one would be shown without an event.
    """
    mark_response_private(request)
    records_grant = records_grant and not is_grant_recorded(request)

    def decide(actor: Actor) -> str | None:
        page, now = get_view_name(request), clock.now()
        return authorize_assurance(actor, assurance, page=page, records_grant=records_grant, now=now)

    refusal = _enforce(request, assurance, decide)
    return _mark_grant(request, refusal) if records_grant else refusal


def get_view_name(request: HttpRequest) -> str:
    """Return the name of the view in the URL configuration, or its dotted path: never a value from the URL."""
    return request.resolver_match.view_name if request.resolver_match else ""


def is_grant_recorded(request: HttpRequest) -> bool:
    """Return whether a guard has recorded the grant of this request, so that it is not recorded twice."""
    return hasattr(request, _GRANTED_ATTRIBUTE)


def _mark_grant(request: HttpRequest, refusal: HttpResponse | None) -> HttpResponse | None:
    if refusal is None:
        setattr(request, _GRANTED_ATTRIBUTE, True)
    return refusal


def mark_guarded(view: ViewCallable) -> ViewCallable:
    """Mark a view, or a permission class, for `is_guarded`. `functools.wraps` copies the mark."""
    view.phi_oidc_guarded = True  # type: ignore[attr-defined]
    return view


def is_guarded(view: object) -> bool:
    """Return whether a guard of this app decides on each request of a view of the URL configuration, and records it.

    That is `phi_access`, `require_assurance`, their mixins, or a permission class that the API view lists as it is.
    """
    classes = getattr(getattr(view, "cls", None), "permission_classes", ())
    return any(hasattr(item, "phi_oidc_guarded") for item in (view, *classes))


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


def _enforce(
    request: HttpRequest,
    assurance: Assurance,
    decide: Callable[[Actor], str | None],
    *,
    resource: Callable[[], str] | None = None,
) -> HttpResponse | None:
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
    if actor.is_local and refusal in (SESSION_MISSING, EMERGENCY_MISSING):
        return _render_local_refusal(request, actor, refusal, resource=resource() if resource else "")
    if refusal == SESSION_MISSING:
        return redirect_to_sign_in(request)
    return _redirect_to_step_up(request, actor, assurance) if refusal in STEP_UP_CODES else deny(request)


def _render_local_refusal(request: HttpRequest, actor: Actor, refusal: str, *, resource: str) -> HttpResponse:
    """Return the response that shows a local account what it may do.

    A local account is not redirected to the provider, because it is used while the provider is unavailable.
    resource: of the emergency access that would admit the account; "": none would.
    """
    is_page = is_navigation(request)
    emergency_url = ""
    if resource and conf.emergency() is not None and can_open_any(actor.user):
        next_url = get_return_path(request, is_safe_navigation=is_page and request.method in ("GET", "HEAD"))
        with suppress(NoReverseMatch):
            emergency_url = f"{reverse('oidc_emergency')}?{urlencode({'resource': resource, 'next': next_url})}"
    if not is_page:
        links = {"emergency": emergency_url} if emergency_url else {}
        return render_problem(403, "A local account is not admitted here.", code=refusal, **links)
    context = {"emergency_url": emergency_url, "sign_in_url": get_sign_in_url()}
    return set_private_headers(render(request, "django_phi_oidc/local_account.html", context, status=403))


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
