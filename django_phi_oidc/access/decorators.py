"""Decorators that guard view functions: permission, purpose, and the assurance of the sign-in."""

from collections.abc import Callable, Collection
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse

from ..errors import DeclarationInvalid
from .enforcement import (
    GUARD_MARK,
    enforce_access_policy,
    enforce_assurance,
    is_guarded,
    mark_guarded,
    set_no_store,
)
from .policy import parse_access_policy, parse_required_assurance

ViewFunction = TypeVar("ViewFunction", bound=Callable[..., Any])


def phi_access(
    *,
    resource: Callable[..., str],
    permission: str,
    purpose: str | Callable[..., str],
    purposes: Collection[str] = (),
    obj: Callable[..., Any] | None = None,
    acr: Collection[str] = (),
    vot: Collection[str] = (),
    max_age: timedelta | None = None,
    label: str | None = None,
    consent: Callable[..., str] | None = None,
) -> Callable[[ViewFunction], ViewFunction]:
    """Guard a view function, sync or async: check session, permission and purpose, commit the
    event, run the view.

    resource: returns `Type/id`. purpose: an HL7 PurposeOfUse code, or a function that returns one
    of `purposes`.
    obj: returns the object that the permission is checked for; without it, no object is passed.
    These functions take the request and the URL's captured values, as the view does, and are not
    coroutines: with an async view they run in a thread. acr, vot, max_age: as in require_assurance;
    checked last, and recorded in the same event. label: `part2` for substance use disorder records.
    consent: returns the reference to the patient's consent, or "".
    Raises: DeclarationInvalid when the view is decorated.
    """
    is_stated = callable(purpose)
    policy = parse_access_policy(
        permission=permission,
        purpose=None if is_stated else purpose,
        purposes=purposes,
        acr=acr,
        vot=vot,
        max_age=max_age,
        label=label,
        has_consent=consent is not None,
    )
    for name, function in {
        "resource": resource,
        "purpose": purpose,
        "obj": obj,
        "consent": consent,
    }.items():
        is_function = (
            callable(function)
            or name == "purpose"
            or (name in ("obj", "consent") and function is None)
        )
        if not is_function or iscoroutinefunction(function):
            raise DeclarationInvalid(f"phi_access: {name} must be a function, and no coroutine.")

    def enforce(
        request: HttpRequest, args: Any, kwargs: Any, *, records_grant: bool
    ) -> HttpResponse | None:
        return enforce_access_policy(
            request,
            policy,
            resource=lambda: resource(request, *args, **kwargs),
            purpose=lambda: purpose(request, *args, **kwargs) if callable(purpose) else purpose,
            find_object=obj and (lambda: obj(request, *args, **kwargs)),
            consent=consent and (lambda: consent(request, *args, **kwargs)),
        )

    guard = _create_guard(enforce, finalize_response=set_no_store)

    def decorate(view: ViewFunction) -> ViewFunction:
        guarded = guard(view)
        setattr(guarded, GUARD_MARK, True)
        return guarded

    return decorate


def require_assurance(
    *, acr: Collection[str] = (), vot: Collection[str] = (), max_age: timedelta | None = None
) -> Callable[[ViewFunction], ViewFunction]:
    """Guard a view function, sync or async: require a strong enough and recent enough sign-in.

    acr: accepted values of the sign-in, the weaker first: the authorization request asks for them
    in this order.
    vot: accepted vectors of trust, in the same way; the sign-in has all components of one of them.
    max_age: the longest time since the person authenticated, at least one minute. Otherwise the
    person signs in again and returns to the page; a request body is not sent again. Each decision
    is recorded as one event, and the view does not run without it; if `phi_access` guards the view
    too, only its event records a grant.
    Raises: DeclarationInvalid when the view is decorated. Spec: OIDC Core 3.1.2.1; RFC 8485; RFC
    9470.
    """
    assurance = parse_required_assurance(acr=acr, vot=vot, max_age=max_age)

    def enforce(
        request: HttpRequest, args: Any, kwargs: Any, *, records_grant: bool
    ) -> HttpResponse | None:
        return enforce_assurance(request, assurance, records_grant=records_grant)

    return _create_guard(enforce)


def _create_guard(
    enforce: Callable[..., HttpResponse | None],
    *,
    finalize_response: Callable[[Any], Any] = lambda response: response,
) -> Callable[[ViewFunction], ViewFunction]:
    """enforce: takes request, args, kwargs, and records_grant: False if an inner guard records the
    grant.
    """

    def decorate(view: ViewFunction) -> ViewFunction:
        records_grant = not is_guarded(view)

        def check(request: HttpRequest, args: Any, kwargs: Any) -> HttpResponse | None:
            if not isinstance(request, HttpRequest):
                raise TypeError(
                    "Only functions can be decorated. For classes, "
                    "use PHIAccessMixin or AssuranceMixin."
                )
            return enforce(request, args, kwargs, records_grant=records_grant)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refusal = check(request, args, kwargs)
            if refusal is None:
                return finalize_response(view(request, *args, **kwargs))
            return refusal

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refusal = await sync_to_async(check)(request, args, kwargs)
            if refusal is None:
                return finalize_response(await view(request, *args, **kwargs))
            return refusal

        return mark_guarded(cast(ViewFunction, aguarded if iscoroutinefunction(view) else guarded))

    return decorate
