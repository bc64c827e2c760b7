"""Permission classes for API views: by scope, by the access policy that `phi_access` uses, by assurance.

They accept users authenticated by an access token or by an OIDC session. A refusal raises an exception, so that in a
combination with `|` the other permission cannot override it.
"""

from collections.abc import Callable, Collection
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404, HttpRequest
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ... import conf
from ..._internal import clock
from ...access.decisions import FindObject, authorize, authorize_assurance
from ...access.no_store import mark_response_private
from ...access.policy import (
    PERMISSION_MISSING,
    SESSION_MISSING,
    STEP_UP_CODES,
    AccessPolicy,
    parse_access_policy,
    parse_required_assurance,
)
from ...audit.request_context import Actor
from ...config.apis import is_scope_token
from ...errors import AuditUnavailable, DeclarationInvalid
from ...oidc.access_token import AccessToken
from .exceptions import (
    SCOPE_MISSING,
    insufficient_scope,
    insufficient_user_authentication,
    logger,
    report_api_refusal,
    service_unavailable,
)

_NOT_FOUND_OR_DENIED_ERRORS = (Http404, ObjectDoesNotExist, DjangoPermissionDenied, NotFound, PermissionDenied)
"""The ways in which a view reports a missing object. Each must lead to a refusal with an event."""


class HasScope(BasePermission):
    """Accepts a token with all of the view's `required_scopes`, and OIDC sessions, but not password sessions."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: APIRequestRefused, 403 with the required scopes, after an event; DeclarationInvalid."""
        required: Any = getattr(view, "required_scopes", None)
        # An empty list would accept every token.
        is_list = isinstance(required, list | tuple | set | frozenset) and required
        if not is_list or not all(map(is_scope_token, required)):
            raise DeclarationInvalid(f"{type(view).__name__}: required_scopes must be a non-empty list of scopes.")
        if not isinstance(request.auth, AccessToken):
            return request.auth is None and Actor.from_request(request).is_authenticated_by_provider
        return _decide_once(request, view, (type(self),), lambda: _find_scope_refusal(request, request.auth, required))


class PHIAccess(BasePermission):
    """Enforces the view's access policy for each method, as PHIAccessMixin does, and records the event first.

    The view has `permission`, `purpose` or `purposes`, `acr`, `max_age`, and the methods `get_resource`, `get_purpose`,
    `get_permission_object`. Use it as the last permission class: its event says that access was permitted.
    """

    phi_oidc_guards_resource = True

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: APIRequestRefused, PermissionDenied, NotAuthenticated, after an event; DeclarationInvalid."""
        mark_response_private(request._request)
        if not hasattr(view, "get_resource"):
            raise DeclarationInvalid(f"{type(view).__name__}: get_resource is missing.")
        policy = parse_access_policy(
            permission=getattr(view, "permission", None),
            purpose=None if hasattr(view, "get_purpose") else getattr(view, "purpose", None),
            purposes=getattr(view, "purposes", ()),
            acr=getattr(view, "acr", ()),
            max_age=getattr(view, "max_age", None),
        )
        if not getattr(request.user, "is_authenticated", False):  # UNAUTHENTICATED_USER may be None
            return False
        resource, purpose = view.get_resource(), view.get_purpose() if hasattr(view, "get_purpose") else view.purpose
        # A value from JSON may be a list: refuse it with an event, as any other invalid purpose.
        purpose = purpose if isinstance(purpose, str) else ""

        def find_refusal() -> APIException | None:
            return _find_access_refusal(request, policy, view, resource=resource, purpose=purpose)

        return _decide_once(request, view, (type(self), repr(resource), purpose), find_refusal)


class RequireAssurance(BasePermission):
    """Requires the authentication that the view's `acr` and `max_age` demand."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: APIRequestRefused, 401 with the requirements, after an event; NotAuthenticated."""
        assurance = parse_required_assurance(acr=getattr(view, "acr", ()), max_age=getattr(view, "max_age", None))
        if not getattr(request.user, "is_authenticated", False):
            return False

        def find_refusal() -> APIException | None:
            refusal_code = authorize_assurance(Actor.from_request(request), assurance, now=clock.now())
            if refusal_code is None:
                return None
            return insufficient_user_authentication(assurance) if refusal_code in STEP_UP_CODES else NotAuthenticated()

        return _decide_once(request, view, (type(self),), find_refusal)


def _decide_once(
    request: Request, view: Any, decision_key: tuple[object, ...], find_refusal: Callable[[], APIException | None]
) -> bool:
    """Decide once per request and raise a refusal: the framework checks again to render forms and OPTIONS."""
    decided_request: HttpRequest | None
    decisions: dict[tuple[object, ...], APIException | None]
    decided_request, decisions = view.__dict__.get("_phi_oidc_decided", (None, {}))
    if decided_request is not request._request:
        # A view object may serve several requests.
        decisions = {}
        view.__dict__["_phi_oidc_decided"] = request._request, decisions
    if decision_key not in decisions:
        try:
            decisions[decision_key] = find_refusal()
        except AuditUnavailable as error:
            logger.error("An API view was not run, because the audit log is unavailable.", exc_info=error)
            decisions[decision_key] = service_unavailable()
    if (refusal := decisions[decision_key]) is not None:
        raise refusal
    return True


def _find_scope_refusal(request: Request, token: AccessToken, required_scopes: Collection[str]) -> APIException | None:
    if token.scopes >= set(required_scopes):
        return None
    origin = Actor.from_request(request).origin
    report_api_refusal(SCOPE_MISSING, origin=origin, provider=token.provider, client_id=token.client_id)
    return insufficient_scope(required_scopes)


def _find_access_refusal(
    request: Request, policy: AccessPolicy, view: Any, *, resource: str, purpose: str
) -> APIException | None:
    find = getattr(view, "get_permission_object", None)
    find_object, actor = _suppress_not_found(find) if find else None, Actor.from_request(request)
    refusal_code = authorize(
        actor, policy, resource=resource, purpose=purpose, find_object=find_object, now=clock.now()
    )
    if refusal_code is None:
        return None
    if refusal_code == SESSION_MISSING:
        return NotAuthenticated()
    if refusal_code in STEP_UP_CODES:
        return insufficient_user_authentication(policy.assurance)
    if refusal_code == PERMISSION_MISSING and isinstance(request.auth, AccessToken):
        api = conf.apis()[request.auth.provider]
        # The token is the reason, so the response reveals nothing about the record.
        if policy.permission not in api.get_permissions(request.auth.scopes):
            return insufficient_scope(api.get_scopes(policy.permission))
    return PermissionDenied()


def _suppress_not_found(find: FindObject) -> FindObject:
    def find_or_none() -> object:
        try:
            return find()
        except _NOT_FOUND_OR_DENIED_ERRORS:
            return None

    return find_or_none
