"""A view function that shows what is of a patient: for whom, and for what purpose."""

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse

from ..errors import DeclarationInvalid
from .admitting import admit, unkept
from .policy import AccessPolicy, declare

View = TypeVar("View", bound=Callable[..., Any])


def phi_access(
    *,
    resource: Callable[..., str],
    permission: str,
    purpose: str | Callable[..., str],
    purposes: Collection[str] = (),
    obj: Callable[..., Any] | None = None,
) -> Callable[[View], View]:
    """Guard a view function, sync or async: session, permission, purpose, then the event, then the view.

    resource: returns `Type/id`. purpose: an HL7 PurposeOfUse code, or what returns one of `purposes`. obj: returns the
    object that the permission is asked for; without it, the permission is asked for none. These functions take the
    request and what the URL captured, as the view does, and are no coroutines: beside an async view they run in a
    thread.
    Raises: DeclarationInvalid when the view is made.
    """
    is_stated = callable(purpose)
    policy = declare(permission=permission, purpose=None if is_stated else purpose, purposes=purposes)
    for name, function in {"resource": resource, "purpose": purpose, "obj": obj}.items():
        is_function = callable(function) or (name == "purpose" or (name == "obj" and function is None))
        if not is_function or iscoroutinefunction(function):
            raise DeclarationInvalid(f"phi_access: {name} must be a function, and no coroutine.")

    def judge(request: HttpRequest, args: Any, kwargs: Any) -> HttpResponse | None:
        if not isinstance(request, HttpRequest):
            raise TypeError("phi_access guards functions of a request: a class takes PHIAccessMixin.")
        return admit(
            request,
            policy,
            resource=lambda: resource(request, *args, **kwargs),
            purpose=lambda: purpose(request, *args, **kwargs) if callable(purpose) else purpose,
            find=obj and (lambda: obj(request, *args, **kwargs)),
        )

    return _guarding(judge, policy)


def _guarding(judge: Callable[..., HttpResponse | None], policy: AccessPolicy) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = judge(request, args, kwargs)
            return unkept(view(request, *args, **kwargs)) if refused is None else refused

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = await sync_to_async(judge)(request, args, kwargs)
            return unkept(await view(request, *args, **kwargs)) if refused is None else refused

        return cast(View, aguarded if iscoroutinefunction(view) else guarded)

    return decorate
