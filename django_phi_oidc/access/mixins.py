"""Mixins that guard class-based views: permission, purpose, and the assurance of the sign-in."""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import classonlymethod
from django.views.generic import View

from ..errors import DeclarationInvalid
from .enforcement import (
    enforce_access_policy,
    enforce_assurance,
    is_guarded,
    mark_guarded,
    set_no_store,
)
from .policy import AccessPolicy, parse_access_policy, parse_required_assurance


class _GuardedView(View):
    """Base of the mixins. It is a View, so that its dispatch precedes Django's at any position
    among the bases.

    `setup` runs before both. as_view() raises DeclarationInvalid for an invalid declaration.
    """

    acr: Collection[str] = ()
    """Accepted values of the sign-in, the weaker first; empty: any. Spec: OIDC Core 3.1.2.1."""
    vot: Collection[str] = ()
    """Accepted vectors of trust, the weaker first; empty: any. Spec: RFC 8485."""
    max_age: timedelta | None = None
    """The longest time since the person authenticated, at least one minute; None: unlimited."""

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:  # noqa: N805 -- as in Django's View
        """Return the view. Raises: DeclarationInvalid."""
        if issubclass(cls, AssuranceMixin) and issubclass(cls, PHIAccessMixin):
            raise DeclarationInvalid(
                f"{cls.__name__}: PHIAccessMixin has acr, vot and max_age of its own."
            )
        cls._validate_declaration(**initkwargs)
        return super().as_view(**initkwargs)

    @classmethod
    def _validate_declaration(cls, **overrides: Any) -> Any:
        raise NotImplementedError

    @mark_guarded
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Run the view's method, or return the refusal in its place."""
        run = super().dispatch
        if self.view_is_async:
            return self._dispatch_async(run, request, *args, **kwargs)
        refusal = self._enforce(request)
        if refusal is None:
            return self._finalize_response(run(request, *args, **kwargs))
        return refusal

    async def _dispatch_async(
        self, run: Callable[..., Any], request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Any:
        refusal = await sync_to_async(self._enforce)(request)
        if refusal is None:
            return self._finalize_response(await run(request, *args, **kwargs))
        return refusal

    def _enforce(self, request: HttpRequest) -> HttpResponse | None:
        raise NotImplementedError

    def _finalize_response(self, response: Any) -> Any:
        return response


class AssuranceMixin(_GuardedView):
    """Guard every method of a view as `require_assurance` guards a function: `acr`, `vot`,
    `max_age`.
    """

    @classmethod
    def _validate_declaration(cls, **overrides: Any) -> Any:
        names = ("acr", "vot", "max_age")
        parse_required_assurance(
            **{name: overrides.get(name, getattr(cls, name)) for name in names}
        )

    def _enforce(self, request: HttpRequest) -> HttpResponse | None:
        assurance = parse_required_assurance(acr=self.acr, vot=self.vot, max_age=self.max_age)
        handler = getattr(self, str(request.method).lower(), None)
        return enforce_assurance(request, assurance, records_grant=not is_guarded(handler))


class PHIAccessMixin(_GuardedView):
    """Guard every method of a view, sync or async: check session, permission and purpose, commit
    the event, run it.

    `acr`, `vot` and `max_age` are checked last, and recorded in the same event.
    """

    phi_oidc_guards_resource = True
    permission: str = ""
    """Required: `app.codename`, the argument of `user.has_perm`."""
    purpose: str = ""
    """An HL7 PurposeOfUse code. If requests state it, override get_purpose and declare `purposes`
    instead.
    """
    purposes: Collection[str] = ()
    """The codes that get_purpose may return."""
    label: str | None = None
    """`part2` for substance use disorder records; then get_consent must be overridden. Spec: 42 CFR
    Part 2.
    """

    def get_resource(self) -> str:
        """Return the `Type/id` that the view shows. Must be overridden."""
        raise NotImplementedError

    def get_purpose(self) -> str:
        """Return the HL7 PurposeOfUse code of the request. Override it together with `purposes`."""
        return self.purpose

    def get_permission_object(self) -> Any:
        """Return the object that the permission is checked for. Unless overridden, no object is
        passed.

        None refuses access, as do Http404, ObjectDoesNotExist and PermissionDenied raised here.
        """
        raise NotImplementedError

    def get_consent(self) -> str:
        """Return the reference to the patient's consent, or "". Override it together with
        `label`.
        """
        return ""

    @classmethod
    def _validate_declaration(cls, **overrides: Any) -> Any:
        return cls.get_access_policy(**overrides)

    @classmethod
    def get_access_policy(cls, **overrides: Any) -> AccessPolicy:
        """Return the declared policy. overrides: replace the class attributes. Raises:
        DeclarationInvalid.
        """
        if not _is_overridden(cls, "get_resource"):
            raise DeclarationInvalid(f"{cls.__name__}: get_resource is missing.")
        return parse_access_policy(
            permission=overrides.get("permission", cls.permission),
            purpose=None
            if _is_overridden(cls, "get_purpose")
            else overrides.get("purpose", cls.purpose),
            purposes=overrides.get("purposes", cls.purposes),
            acr=overrides.get("acr", cls.acr),
            vot=overrides.get("vot", cls.vot),
            max_age=overrides.get("max_age", cls.max_age),
            label=overrides.get("label", cls.label),
            has_consent=_is_overridden(cls, "get_consent"),
        )

    def _finalize_response(self, response: Any) -> Any:
        return set_no_store(response)

    def _enforce(self, request: HttpRequest) -> HttpResponse | None:
        names = ("permission", "purpose", "purposes", "acr", "vot", "max_age", "label")
        return enforce_access_policy(
            request,
            self.get_access_policy(**{name: getattr(self, name) for name in names}),
            resource=self.get_resource,
            purpose=self.get_purpose,
            find_object=self.get_permission_object
            if _is_overridden(type(self), "get_permission_object")
            else None,
            consent=self.get_consent,
        )


def _is_overridden(view_class: type[PHIAccessMixin], method_name: str) -> bool:
    return getattr(view_class, method_name) is not getattr(PHIAccessMixin, method_name)
