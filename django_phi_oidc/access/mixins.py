"""Guards of class-based views: for whom, for what purpose, and how sure a provider must be of who it is."""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import classonlymethod
from django.views.generic import View

from ..errors import DeclarationInvalid
from .enforcement import enforce_access_policy, enforce_assurance, set_no_store
from .policy import AccessPolicy, parse_access_policy, parse_required_assurance


class _GuardedView(View):
    """It is a View itself, so that its dispatch comes before Django's wherever a guard stands among the bases.

    What a `setup` does comes before both. A mistake in the declaration is a DeclarationInvalid from as_view().
    """

    acr: Collection[str] = ()
    """Values of which the sign-in's is one, the weaker first; empty: any. Spec: OIDC Core 3.1.2.1."""
    max_age: timedelta | None = None
    """Since the person authenticated, a minute or more; None: however long ago that was."""

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:  # noqa: N805 -- Django's own has it so
        """Return the view. Raises: DeclarationInvalid."""
        if issubclass(cls, AssuranceMixin) and issubclass(cls, PHIAccessMixin):
            raise DeclarationInvalid(f"{cls.__name__}: PHIAccessMixin has acr and max_age of its own.")
        cls._validate_declaration(**initkwargs)
        return super().as_view(**initkwargs)

    @classmethod
    def _validate_declaration(cls, **overrides: Any) -> Any:
        """Raises: DeclarationInvalid."""
        raise NotImplementedError

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the method's response, or the answer in its place."""
        run = super().dispatch
        if self.view_is_async:
            return self._dispatch_async(run, request, *args, **kwargs)
        refused = self._enforce(request)
        return self._finalize_response(run(request, *args, **kwargs)) if refused is None else refused

    async def _dispatch_async(self, run: Callable[..., Any], request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        refused = await sync_to_async(self._enforce)(request)
        return self._finalize_response(await run(request, *args, **kwargs)) if refused is None else refused

    def _enforce(self, request: HttpRequest) -> HttpResponse | None:
        raise NotImplementedError

    def _finalize_response(self, response: Any) -> Any:
        return response


class AssuranceMixin(_GuardedView):
    """Guards every method of a view as `require_assurance` guards a function: `acr`, `max_age`."""

    @classmethod
    def _validate_declaration(cls, **overrides: Any) -> Any:
        return parse_required_assurance(
            acr=overrides.get("acr", cls.acr), max_age=overrides.get("max_age", cls.max_age)
        )

    def _enforce(self, request: HttpRequest) -> HttpResponse | None:
        return enforce_assurance(request, parse_required_assurance(acr=self.acr, max_age=self.max_age))


class PHIAccessMixin(_GuardedView):
    """Guards every method of a view, sync or async: session, permission, purpose, then the event, then the method.

    `acr` and `max_age` are asked for when all else is met, in the same event.
    """

    permission: str = ""
    """What `user.has_perm` is asked: `app.codename`. Needed."""
    purpose: str = ""
    """An HL7 PurposeOfUse code. Where requests state one, override get_purpose and declare `purposes` instead."""
    purposes: Collection[str] = ()
    """The codes of which get_purpose returns one."""

    def get_resource(self) -> str:
        """Return `Type/id` of what the view shows. To be overridden."""
        raise NotImplementedError

    def get_purpose(self) -> str:
        """Return what the resource is asked for: an HL7 PurposeOfUse code. To be overridden beside `purposes`."""
        return self.purpose

    def get_permission_object(self) -> Any:
        """Return the object that the permission is asked for. Unless overridden it is asked for none.

        None refuses, as do Http404, ObjectDoesNotExist and PermissionDenied from here.
        """
        raise NotImplementedError

    @classmethod
    def _validate_declaration(cls, **overrides: Any) -> Any:
        return cls.get_access_policy(**overrides)

    @classmethod
    def get_access_policy(cls, **overrides: Any) -> AccessPolicy:
        """Return what the view asks for. given: in place of the class's own. Raises: DeclarationInvalid."""
        if not _is_overridden(cls, "get_resource"):
            raise DeclarationInvalid(f"{cls.__name__}: get_resource is missing.")
        return parse_access_policy(
            permission=overrides.get("permission", cls.permission),
            purpose=None if _is_overridden(cls, "get_purpose") else overrides.get("purpose", cls.purpose),
            purposes=overrides.get("purposes", cls.purposes),
            acr=overrides.get("acr", cls.acr),
            max_age=overrides.get("max_age", cls.max_age),
        )

    def _finalize_response(self, response: Any) -> Any:
        return set_no_store(response)

    def _enforce(self, request: HttpRequest) -> HttpResponse | None:
        is_of_object = _is_overridden(type(self), "get_permission_object")
        return enforce_access_policy(
            request,
            self.get_access_policy(
                permission=self.permission,
                purpose=self.purpose,
                purposes=self.purposes,
                acr=self.acr,
                max_age=self.max_age,
            ),
            resource=self.get_resource,
            purpose=self.get_purpose,
            find_object=self.get_permission_object if is_of_object else None,
        )


def _is_overridden(view_class: type[PHIAccessMixin], method_name: str) -> bool:
    return getattr(view_class, method_name) is not getattr(PHIAccessMixin, method_name)
