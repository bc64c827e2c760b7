"""Guards of API views: by scope, by the same declaration as `phi_access`, by how sure a provider must be.

They ask for whoever is authenticated, by an access token or in a session of a provider. A refusal is raised, so it
stays one beside any other permission that would let in (`|`).
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
    report_refusal,
    service_unavailable,
)

_NOT_FOUND_OR_DENIED_ERRORS = (Http404, ObjectDoesNotExist, DjangoPermissionDenied, NotFound, PermissionDenied)
"""All ways in which a view says so; none of them goes past the trail."""


class HasScope(BasePermission):
    """Lets in a token that has all of the view's `required_scopes`, and a person in a session of a provider.

    That one has no scopes. By another kind of token or a password nobody is let in.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: Refusal, 403 with the scopes that are missing, after an event; DeclarationInvalid."""
        required = _get_required_scopes(view)
        if not isinstance(request.auth, AccessToken):
            return request.auth is None and Actor.from_request(request).is_authenticated_by_provider
        return _decide_once(request, view, (type(self),), lambda: _find_scope_refusal(request, request.auth, required))


class PHIAccess(BasePermission):
    """Guards every method of a view as PHIAccessMixin does: vouched for, permission, purpose, event, then the method.

    The view has `permission`, `purpose` or `purposes`, `acr`, `max_age`, and the methods `get_resource`, `get_purpose`,
    `get_permission_object`. It stands last among the permissions: what it lets in, the trail says, was let in.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: Refusal, PermissionDenied, NotAuthenticated, after the event of it; DeclarationInvalid."""
        mark_response_private(request._request)
        policy = _get_policy(view)
        if not _is_authenticated(request):
            return False
        resource, purpose = view.get_resource(), view.get_purpose() if hasattr(view, "get_purpose") else view.purpose
        # What JSON holds may be a list: a refusal like any other, with its event.
        purpose = purpose if isinstance(purpose, str) else ""

        def refuse() -> APIException | None:
            return _find_access_refusal(request, policy, view, resource=resource, purpose=purpose)

        return _decide_once(request, view, (type(self), repr(resource), purpose), refuse)


class RequireAssurance(BasePermission):
    """Lets in whom an OP knew so surely and so lately as the view's `acr` and `max_age` say."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: Refusal, 401 with what is asked for, after an event; NotAuthenticated; DeclarationInvalid."""
        assurance = parse_required_assurance(acr=getattr(view, "acr", ()), max_age=getattr(view, "max_age", None))
        if not _is_authenticated(request):
            return False

        def refuse() -> APIException | None:
            refused = authorize_assurance(Actor.from_request(request), assurance, now=clock.now())
            if refused is None:
                return None
            return insufficient_user_authentication(assurance) if refused in STEP_UP_CODES else NotAuthenticated()

        return _decide_once(request, view, (type(self),), refuse)


def _is_authenticated(request: Request) -> bool:
    """The framework's settings may make nobody None."""
    return bool(getattr(request.user, "is_authenticated", False))


def _decide_once(
    request: Request, view: Any, decision_key: tuple[object, ...], find_refusal: Callable[[], APIException | None]
) -> bool:
    """Decide a question once for a request: the framework asks again for what it tells of a view, as forms and OPTIONS.

    Raises: what refuse returns.
    """
    asked_for: HttpRequest | None
    decided: dict[tuple[object, ...], APIException | None]
    asked_for, decided = view.__dict__.get("_phi_oidc_decided", (None, {}))
    if asked_for is not request._request:
        # A view may be the same object for many requests.
        decided = {}
        view.__dict__["_phi_oidc_decided"] = request._request, decided
    if decision_key not in decided:
        try:
            decided[decision_key] = find_refusal()
        except AuditUnavailable as fault:
            logger.error("An API view was not run: the trail can't be written.", exc_info=fault)
            decided[decision_key] = service_unavailable()
    if (refused := decided[decision_key]) is not None:
        raise refused
    return True


def _get_required_scopes(view: Any) -> Collection[str]:
    """Raises: DeclarationInvalid: a view that names none would be open to every token."""
    required = getattr(view, "required_scopes", None)
    if (
        not isinstance(required, list | tuple | set | frozenset)
        or not required
        or not all(map(is_scope_token, required))
    ):
        raise DeclarationInvalid(f"{type(view).__name__}: required_scopes is a list of scopes, and not empty.")
    return required


def _find_scope_refusal(request: Request, token: AccessToken, required_scopes: Collection[str]) -> APIException | None:
    if token.scopes >= set(required_scopes):
        return None
    origin = Actor.from_request(request).origin
    report_refusal(SCOPE_MISSING, origin=origin, provider=token.provider, client_id=token.client_id)
    return insufficient_scope(required_scopes)


def _get_policy(view: Any) -> AccessPolicy:
    """Raises: DeclarationInvalid."""
    if not hasattr(view, "get_resource"):
        raise DeclarationInvalid(f"{type(view).__name__}: get_resource is missing.")
    return parse_access_policy(
        permission=getattr(view, "permission", None),
        purpose=None if hasattr(view, "get_purpose") else getattr(view, "purpose", None),
        purposes=getattr(view, "purposes", ()),
        acr=getattr(view, "acr", ()),
        max_age=getattr(view, "max_age", None),
    )


def _find_access_refusal(
    request: Request, policy: AccessPolicy, view: Any, *, resource: str, purpose: str
) -> APIException | None:
    refused = authorize(
        Actor.from_request(request),
        policy,
        resource=resource,
        purpose=purpose,
        find_object=_suppress_not_found(view.get_permission_object) if hasattr(view, "get_permission_object") else None,
        now=clock.now(),
    )
    if refused is None:
        return None
    if refused == SESSION_MISSING:
        return NotAuthenticated()
    if refused in STEP_UP_CODES:
        return insufficient_user_authentication(policy.assurance)
    if refused == PERMISSION_MISSING and isinstance(request.auth, AccessToken):
        api = conf.apis()[request.auth.provider]
        # Of the token alone, and of nobody's record.
        if policy.permission not in api.get_permissions(request.auth.scopes):
            return insufficient_scope(api.get_scopes(policy.permission))
    return PermissionDenied()


def _suppress_not_found(find: FindObject) -> FindObject:
    def found() -> object:
        try:
            return find()
        except _NOT_FOUND_OR_DENIED_ERRORS:
            return None

    return found
