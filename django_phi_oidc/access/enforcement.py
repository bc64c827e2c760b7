"""The policy enforcement point: run a guarded view, or answer the request in its place.

A sign-in that is too weak or too old leads to a stronger sign-in and back. Spec: RFC 9470.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render

from .._internal import clock
from ..audit.refusals import RecordedRefusal
from ..audit.request_context import Actor, get_reference
from ..errors import AuditUnavailable, Code
from ..extensions import AccessOverrideSource, access_overrides, local_account_sources
from .decisions import FindObject, authorize, authorize_assurance
from .no_store import mark_response_private
from .policy import (
    EMERGENCY_MISSING,
    SESSION_MISSING,
    STEP_UP_CODES,
    AccessPolicy,
    Assurance,
    get_step_up_assurance,
    is_resource_reference,
)
from .responses import (
    RETRY_AFTER_SECONDS,
    find_start_url,
    format_step_up_challenge,
    get_sign_in_url,
    is_navigation,
    render_problem,
    set_private_headers,
)
from .step_up import create_step_up_url, get_return_path

GUARD_MARK = "phi_oidc_guards_resource"
"""The attribute that marks views and permission classes that enforce an access policy, for the
system checks.
"""
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
    """Return None if the view may run, after the event is committed; otherwise the response in its
    place.

    No response to the request may be stored, not even a refusal. The functions are called only for
    a signed-in user; an anonymous request is redirected to the sign-in, and is not recorded. A
    local account without an open emergency for the resource gets a page that says how to open one.
    Raises: RecordedRefusal if a browser is refused, so that the page of the project or of the app
    is shown.
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

    refusal = _enforce(
        request, policy.assurance, decide, resource=resource, permission=policy.permission
    )
    return _mark_grant(request, refusal)


def suppress_not_found(
    find: Callable[[], Found],
    *,
    missing: Found,
    errors: tuple[type[Exception], ...] = NOT_FOUND_ERRORS,
) -> Callable[[], Found]:
    """Return find, but with the result missing instead of its errors, which must not bypass the
    audit log.
    """

    def find_or_missing() -> Found:
        try:
            return find()
        except errors:
            return missing

    return find_or_missing


def enforce_assurance(
    request: HttpRequest, assurance: Assurance, *, records_grant: bool = False
) -> HttpResponse | None:
    """Return None if the sign-in meets the assurance; otherwise the response that replaces that of
    the view.

    records_grant: a grant is recorded, unless an outer guard has recorded one for this request. No
    response may be stored, because a stored one would be shown without an event.
    """
    mark_response_private(request)
    records_grant = records_grant and not is_grant_recorded(request)

    def decide(actor: Actor) -> str | None:
        page = get_view_name(request)
        now = clock.now()
        return authorize_assurance(
            actor, assurance, page=page, records_grant=records_grant, now=now
        )

    refusal = _enforce(request, assurance, decide)

    if records_grant:
        return _mark_grant(request, refusal)
    return refusal


def get_view_name(request: HttpRequest) -> str:
    """Return the name of the view in the URL configuration, or its dotted path: never a value from
    the URL.
    """
    if request.resolver_match:
        return request.resolver_match.view_name
    return ""


def is_grant_recorded(request: HttpRequest) -> bool:
    """Return whether a guard has recorded the grant of this request, so that it is not recorded
    twice.
    """
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
    """Return whether a guard of this app decides on each request of a view of the URL
    configuration, and records it.

    That is `phi_access`, `require_assurance`, their mixins, or a permission class that the API view
    lists as it is.
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


def deny(request: HttpRequest, *, permission: str = "", emergency_url: str = "") -> HttpResponse:
    """Return a problem to a script. permission, emergency_url: as in RecordedRefusal.

    Raises: RecordedRefusal for a browser, so that the page of the project or of the app is shown.
    """
    if is_navigation(request):
        raise RecordedRefusal(
            reference=get_reference(request), permission=permission, emergency_url=emergency_url
        )
    return render_problem(403, "Access is denied.", code="access_denied")


def render_unavailable(request: HttpRequest) -> HttpResponse:
    """Return the page, or the problem for a script, for an unavailable audit log."""
    if is_navigation(request):
        context = {
            "reference": get_reference(request),
            "retry_url": request.get_full_path() if request.method == "GET" else "",
            "home_url": find_start_url(),
        }
        response = render(request, "django_phi_oidc/trail_unavailable.html", context, status=503)
        set_private_headers(response)
    else:
        response = render_problem(
            503, "Nothing can be shown at the moment.", code=Code.AUDIT_UNAVAILABLE
        )
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _enforce(
    request: HttpRequest,
    assurance: Assurance,
    decide: Callable[[Actor], str | None],
    *,
    resource: Callable[[], str] | None = None,
    permission: str = "",
) -> HttpResponse | None:
    """Raises: RecordedRefusal for a browser, if another sign-in does not help."""
    actor = Actor.from_request(request)
    if not actor.user.is_authenticated:
        return redirect_to_sign_in(request)
    try:
        refusal = decide(actor)
    except AuditUnavailable as error:
        message = "A view was not run: the audit log is unavailable. reference=%s"
        logger.error(message, get_reference(request), exc_info=error)  # noqa: TRY400 -- with its cause
        return render_unavailable(request)
    if refusal is None:
        return None
    if actor.is_local and refusal in (SESSION_MISSING, EMERGENCY_MISSING):
        # No redirect to the provider: a local account is used while the provider is unavailable.
        resource_name = resource() if resource else ""
        emergency_url = _find_emergency_url(request, actor, resource_name, access_overrides)
        for source in local_account_sources:
            return source.render_refusal(request, code=refusal, emergency_url=emergency_url)
    if refusal == SESSION_MISSING:
        return redirect_to_sign_in(request)
    is_step_up = refusal in STEP_UP_CODES
    if is_step_up:
        return _redirect_to_step_up(request, actor, get_step_up_assurance(assurance, refusal))
    return _deny_access(request, actor, resource=resource, permission=permission)


def _deny_access(
    request: HttpRequest, actor: Actor, *, resource: Callable[[], str] | None, permission: str
) -> HttpResponse:
    """Raises: RecordedRefusal for a browser."""
    # The same link for every rule: it must not show whether the object exists.
    sources = []
    for source in access_overrides:
        if source.is_offered(permission):
            sources.append(source)
    emergency_url = ""
    if resource and sources and is_navigation(request):
        emergency_url = _find_emergency_url(request, actor, resource(), sources)
    return deny(request, permission=permission, emergency_url=emergency_url)


def _find_emergency_url(
    request: HttpRequest, actor: Actor, resource: str, sources: Iterable[AccessOverrideSource]
) -> str:
    """Return the form that opens an access override for the resource; "" if the user may not open
    one.
    """
    if not is_resource_reference(resource):
        return ""
    is_safe_navigation = is_navigation(request) and request.method in ("GET", "HEAD")
    next_url = get_return_path(request, is_safe_navigation=is_safe_navigation)
    for source in sources:
        url = source.find_opening_url(actor, resource=resource, next_url=next_url)
        if url:
            return url
    return ""


def _redirect_to_step_up(request: HttpRequest, actor: Actor, assurance: Assurance) -> HttpResponse:
    """A request body is not sent again after the step-up, so the person gets a page that says this
    first.
    """
    is_page = is_navigation(request)
    is_safe = request.method in ("GET", "HEAD")
    next_url = get_return_path(request, is_safe_navigation=is_page and is_safe)
    url = create_step_up_url(
        assurance, session_id=actor.origin.session, next_url=next_url, now=clock.now()
    )
    if not url:
        return deny(request)
    if not is_page:
        code = "insufficient_user_authentication"
        challenge = format_step_up_challenge(assurance)
        return render_problem(
            401, "A stronger sign-in is needed.", code=code, challenge=challenge, step_up=url
        )
    if is_safe:
        return set_private_headers(HttpResponseRedirect(url))
    context = {
        "step_up_url": url,
        "reference": get_reference(request),
        "home_url": find_start_url(),
    }
    return set_private_headers(render(request, "django_phi_oidc/step_up.html", context, status=403))
