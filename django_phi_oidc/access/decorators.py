"""Guards of view functions: for whom, for what purpose, and how sure a provider must be of who it is."""

from collections.abc import Callable, Collection
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse

from ..errors import DeclarationInvalid
from .enforcement import enforce_access_policy, enforce_assurance, set_no_store
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
    max_age: timedelta | None = None,
) -> Callable[[ViewFunction], ViewFunction]:
    """Guard a view function, sync or async: session, permission, purpose, then the event, then the view.

    resource: returns `Type/id`. purpose: an HL7 PurposeOfUse code, or what returns one of `purposes`. obj: returns the
    object that the permission is asked for; without it, the permission is asked for none. These functions take the
    request and what the URL captured, as the view does, and are no coroutines: beside an async view they run in a
    thread. acr, max_age: as require_assurance has them, asked for when all else is met, in the same event.
    Raises: DeclarationInvalid when the view is made.
    """
    is_stated = callable(purpose)
    policy = parse_access_policy(
        permission=permission, purpose=None if is_stated else purpose, purposes=purposes, acr=acr, max_age=max_age
    )
    for name, function in {"resource": resource, "purpose": purpose, "obj": obj}.items():
        is_function = callable(function) or (name == "purpose" or (name == "obj" and function is None))
        if not is_function or iscoroutinefunction(function):
            raise DeclarationInvalid(f"phi_access: {name} must be a function, and no coroutine.")

    def judge(request: HttpRequest, args: Any, kwargs: Any) -> HttpResponse | None:
        return enforce_access_policy(
            request,
            policy,
            resource=lambda: resource(request, *args, **kwargs),
            purpose=lambda: purpose(request, *args, **kwargs) if callable(purpose) else purpose,
            find_object=obj and (lambda: obj(request, *args, **kwargs)),
        )

    return _create_guard(judge, finalize_response=set_no_store)


def require_assurance(
    *, acr: Collection[str] = (), max_age: timedelta | None = None
) -> Callable[[ViewFunction], ViewFunction]:
    """Guard a view function, sync or async: whom a provider vouched for, as surely and as lately as asked.

    acr: values of which the sign-in's is one, the weaker first: they are asked for in this order. max_age: since the
    person authenticated, a minute or more. Who has less signs in again and comes back; a body that was sent is not
    sent again. Each refusal is an event; a view that runs is none.
    Raises: DeclarationInvalid when the view is made. Spec: OIDC Core 3.1.2.1; RFC 9470.
    """
    assurance = parse_required_assurance(acr=acr, max_age=max_age)
    return _create_guard(
        lambda request, args, kwargs: enforce_assurance(request, assurance), finalize_response=lambda response: response
    )


def _create_guard(
    enforce: Callable[[HttpRequest, Any, Any], HttpResponse | None], *, finalize_response: Callable[[Any], Any]
) -> Callable[[ViewFunction], ViewFunction]:
    def check(request: HttpRequest, args: Any, kwargs: Any) -> HttpResponse | None:
        if not isinstance(request, HttpRequest):
            raise TypeError("A function of a request is guarded: a class takes PHIAccessMixin or AssuranceMixin.")
        return enforce(request, args, kwargs)

    def decorate(view: ViewFunction) -> ViewFunction:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = check(request, args, kwargs)
            return finalize_response(view(request, *args, **kwargs)) if refused is None else refused

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = await sync_to_async(check)(request, args, kwargs)
            return finalize_response(await view(request, *args, **kwargs)) if refused is None else refused

        return cast(ViewFunction, aguarded if iscoroutinefunction(view) else guarded)

    return decorate
