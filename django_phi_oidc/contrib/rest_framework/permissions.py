"""Permission classes for API views: by scope, by the access policy that `phi_access` uses, by
assurance.

They accept users authenticated by an access token or by an OIDC session. A refusal raises an
exception, so that in a combination with `|` the other permission cannot override it.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from django.http import HttpRequest
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, PermissionDenied
from rest_framework.permissions import AND, BasePermission
from rest_framework.request import Request

from ..._internal import clock
from ...access.decisions import authorize, authorize_assurance, record_page_grant
from ...access.enforcement import (
    NOT_FOUND_ERRORS,
    get_view_name,
    is_grant_recorded,
    mark_guarded,
    suppress_not_found,
)
from ...access.no_store import mark_response_private
from ...access.policy import (
    PERMISSION_MISSING,
    SESSION_MISSING,
    STEP_UP_CODES,
    AccessPolicy,
    get_step_up_assurance,
    parse_access_policy,
    parse_required_assurance,
)
from ...audit.events import Origin
from ...audit.request_context import Actor
from ...errors import AuditUnavailable, DeclarationInvalid
from ..apis import conf as apis_conf
from ..apis.access_token import AccessToken
from ..common.accepted_tokens import is_scope_token
from .exceptions import (
    SCOPE_MISSING,
    insufficient_scope,
    insufficient_user_authentication,
    logger,
    report_api_refusal,
    service_unavailable,
)

_suppress_not_found = partial(
    suppress_not_found, errors=(*NOT_FOUND_ERRORS, NotFound, PermissionDenied)
)


@mark_guarded
class HasScope(BasePermission):
    """Accepts a token with all of the view's `required_scopes`, and OIDC sessions, but not password
    sessions.

    It records each request that it accepts, unless PHIAccess or RequireAssurance is required too,
    and does so. A local account is accepted only if PHIAccess is required too, which admits it in
    an emergency.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: APIRequestRefused, 403 with the required scopes, after an event, or 503;
        DeclarationInvalid.
        """
        mark_response_private(request._request)
        required: Any = getattr(view, "required_scopes", None)
        # An empty list would accept every token.
        is_list = isinstance(required, list | tuple | set | frozenset) and required
        if not is_list or not all(map(is_scope_token, required)):
            raise DeclarationInvalid(
                f"{type(view).__name__}: required_scopes must be a non-empty list of scopes."
            )
        token = request.auth
        actor = Actor.from_request(request)
        if not isinstance(token, AccessToken):
            is_accepted = actor.is_authenticated_by_provider or (
                actor.is_local and _requires(view, PHIAccess)
            )
            if token is not None or not is_accepted:
                return False

        def find_refusal() -> APIException | None:
            is_token = isinstance(token, AccessToken)
            refusal = None
            if is_token:
                refusal = _find_scope_refusal(token, required, origin=actor.origin)

            is_recorded = _requires(view, PHIAccess, RequireAssurance) or is_grant_recorded(
                request._request
            )
            if refusal is None and not is_recorded:
                record_page_grant(actor, page=get_view_name(request._request), now=clock.now())
            return refusal

        return _decide_once(request, view, (type(self),), find_refusal)


@mark_guarded
class PHIAccess(BasePermission):
    """Enforces the view's access policy for each method, as PHIAccessMixin does, and records the
    event first.

    The view has `permission`, `purpose` or `purposes`, `acr`, `vot`, `max_age`, `label`, and the
    methods `get_resource`, `get_purpose`, `get_permission_object`, `get_consent`. Use it as the
    last permission class: its event says that access was permitted.
    """

    phi_oidc_guards_resource = True

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: APIRequestRefused, PermissionDenied, NotAuthenticated, after an event;
        DeclarationInvalid.
        """
        mark_response_private(request._request)
        if not hasattr(view, "get_resource"):
            raise DeclarationInvalid(f"{type(view).__name__}: get_resource is missing.")
        policy = parse_access_policy(
            permission=getattr(view, "permission", None),
            purpose=None if hasattr(view, "get_purpose") else getattr(view, "purpose", None),
            purposes=getattr(view, "purposes", ()),
            acr=getattr(view, "acr", ()),
            vot=getattr(view, "vot", ()),
            max_age=getattr(view, "max_age", None),
            label=getattr(view, "label", None),
            has_consent=hasattr(view, "get_consent"),
        )
        if not getattr(request.user, "is_authenticated", False):  # UNAUTHENTICATED_USER may be None
            return False
        resource = view.get_resource()

        if hasattr(view, "get_purpose"):
            purpose = view.get_purpose()
        else:
            purpose = view.purpose

        # A value from JSON may be a list: refuse it with an event, as any other invalid purpose.
        if not isinstance(purpose, str):
            purpose = ""

        def find_refusal() -> APIException | None:
            return _find_access_refusal(request, policy, view, resource=resource, purpose=purpose)

        return _decide_once(request, view, (type(self), repr(resource), purpose), find_refusal)


@mark_guarded
class RequireAssurance(BasePermission):
    """Requires the authentication that the view's `acr`, `vot` and `max_age` demand, and records
    each decision.

    An access token has no `vot`, so it does not meet one.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises: APIRequestRefused, 401 with the requirements, after an event;
        NotAuthenticated.
        """
        mark_response_private(request._request)
        options = {name: getattr(view, name, ()) for name in ("acr", "vot")}
        assurance = parse_required_assurance(**options, max_age=getattr(view, "max_age", None))
        if not getattr(request.user, "is_authenticated", False):
            return False

        def find_refusal() -> APIException | None:
            refusal_code = authorize_assurance(
                Actor.from_request(request),
                assurance,
                page=get_view_name(request._request),
                records_grant=not (
                    _requires(view, PHIAccess) or is_grant_recorded(request._request)
                ),
                now=clock.now(),
            )
            if refusal_code is None:
                return None
            if refusal_code not in STEP_UP_CODES:
                return NotAuthenticated()
            return insufficient_user_authentication(get_step_up_assurance(assurance, refusal_code))

        return _decide_once(request, view, (type(self),), find_refusal)


def _decide_once(
    request: Request,
    view: Any,
    decision_key: tuple[object, ...],
    find_refusal: Callable[[], APIException | None],
) -> bool:
    """Decide once per request and raise a refusal: the framework checks again to render forms and
    OPTIONS.
    """
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
            logger.error(
                "An API view was not run, because the audit log is unavailable.", exc_info=error
            )
            decisions[decision_key] = service_unavailable()
    if (refusal := decisions[decision_key]) is not None:
        raise refusal
    return True


def _requires(view: Any, *classes: type[BasePermission]) -> bool:
    """Return whether the view asks one of these permissions in any case: not as an operand of
    `|`.
    """
    permissions = list(view.get_permissions())
    while permissions:
        permission = permissions.pop()
        if isinstance(permission, classes):
            return True
        if isinstance(permission, AND):
            permissions += permission.op1, permission.op2
    return False


def _find_scope_refusal(
    token: AccessToken, required_scopes: Collection[str], *, origin: Origin
) -> APIException | None:
    if token.scopes >= set(required_scopes):
        return None
    report_api_refusal(
        SCOPE_MISSING, origin=origin, provider=token.provider, client_id=token.client_id
    )
    return insufficient_scope(required_scopes)


def _find_access_refusal(
    request: Request, policy: AccessPolicy, view: Any, *, resource: str, purpose: str
) -> APIException | None:
    find_object = getattr(view, "get_permission_object", None)
    find_consent = getattr(view, "get_consent", None)
    refusal_code = authorize(
        Actor.from_request(request),
        policy,
        resource=resource,
        purpose=purpose,
        find_object=find_object and _suppress_not_found(find_object, missing=None),
        now=clock.now(),
        find_consent=find_consent and _suppress_not_found(find_consent, missing=""),
    )
    if refusal_code is None:
        return None
    if refusal_code == SESSION_MISSING:
        return NotAuthenticated()
    if refusal_code in STEP_UP_CODES:
        return insufficient_user_authentication(
            get_step_up_assurance(policy.assurance, refusal_code)
        )
    if refusal_code == PERMISSION_MISSING and isinstance(request.auth, AccessToken):
        api = apis_conf.apis()[request.auth.provider]
        # The token is the reason, so the response reveals nothing about the record.
        if policy.permission not in api.get_permissions(request.auth.scopes):
            return insufficient_scope(api.get_scopes(policy.permission))
    return PermissionDenied()
