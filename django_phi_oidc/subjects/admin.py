"""Admin of subjects and activation codes: read-only lists, and forms to link and to invite a person.

No digest and no `sub` is shown. An activation code is shown once, in the response to its creation.
"""

from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import conf
from .._internal import clock
from .._internal.admin_filters import create_state_filter
from ..audit.admin_base import CascadeOnlyAdmin, ErrorMessageAdmin, ResourcePermissionDenied, get_error_message
from ..audit.events import Origin
from ..audit.request_context import Actor
from ..crypto import keyring
from ..errors import HeldForLegalReasons, InvitationRefused, PhiOidcError
from .invitations import (
    Invitation,
    can_invite,
    create_invitations,
    has_more_privileges,
    revoke_activation_codes,
)
from .linking import link_existing_user
from .models import ActivationCode, ActivationCodeQuerySet, PairwiseSubject

MAX_CODES_REVOKED_AT_ONCE = 1_000


def _list_provider_choices() -> list[tuple[str, str]]:
    return [(name, provider.label or name) for name, provider in conf.providers().items()]


def _validate_not_more_privileged(request: HttpRequest, user: Any) -> None:
    """An administrator who links a person decides who signs in as the user. Raises: ResourcePermissionDenied."""
    if has_more_privileges(user, request.user):
        raise ResourcePermissionDenied(f"user/{user.pk}")


class SubjectLinkForm(forms.ModelForm):  # type: ignore[type-arg]  # only the stubs have type arguments
    """Links a person to a user. The `sub` is not rendered, also not after a validation error."""

    provider = forms.ChoiceField(label=gettext_lazy("Provider"), choices=_list_provider_choices)
    sub = forms.CharField(
        label=gettext_lazy("Subject (sub)"),
        max_length=255,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "vTextField"}),
        help_text=gettext_lazy("The provider's identifier of this person for this portal. It is not stored or shown."),
    )

    class Meta:
        model = PairwiseSubject
        fields = ("user",)


@admin.register(PairwiseSubject)
@method_decorator(sensitive_post_parameters("sub"), name="add_view")
class PairwiseSubjectAdmin(ErrorMessageAdmin):
    """Adding links a person to a user, deleting unlinks one. Nothing can be changed."""

    form = SubjectLinkForm
    raw_id_fields = ("user",)
    list_display = ("uuid", "user", "issuer", "first_seen_at", "last_seen_at")
    list_select_related = ("user",)
    search_fields = ("uuid", "user")
    search_help_text = gettext_lazy("A subject's UUID or a user name, in full.")
    show_full_result_count = False
    # No deletion in bulk: each one ends sessions and revokes their tokens at the provider.
    actions = None

    def get_fields(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> Any:
        return self.list_display if obj else ("provider", "user", "sub")

    def has_change_permission(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PairwiseSubject], search_term: str
    ) -> tuple[QuerySet[PairwiseSubject], bool]:
        """Use the index: Django's search compares a UUID as text."""
        if not (term := search_term.strip()):
            return queryset, False
        with suppress(ValueError):
            subjects = queryset.filter(uuid=UUID(term))
            if subjects.exists():
                return subjects, False
        # A user name may look like a UUID.
        return queryset.filter(**{f"user__{get_user_model().USERNAME_FIELD}": term}), False

    def get_retry_url(self, request: HttpRequest) -> str:
        """Return the URL of the form with its previous input, except for the `sub`."""
        return f"{request.path}?{urlencode({name: request.POST.get(name, '') for name in ('provider', 'user')})}"

    def save_model(self, request: HttpRequest, obj: PairwiseSubject, form: Any, change: bool) -> None:
        """Link, in the form's transaction. Raises: PhiOidcError; DoesNotExist if the user was deleted."""
        _validate_not_more_privileged(request, obj.user)
        subject = link_existing_user(
            obj.user,
            sub=form.cleaned_data["sub"],
            provider=conf.providers()[form.cleaned_data["provider"]],
            keys=keyring.get_keys("subject"),
            origin=Actor.from_request(request).origin,
            now=clock.now(),
        )
        obj.pk = subject.pk
        obj.refresh_from_db()

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show an error if a legal hold was placed since the confirmation page, which shows holds, was rendered."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except HeldForLegalReasons as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def delete_model(self, request: HttpRequest, obj: PairwiseSubject) -> None:
        obj.deleted_by = Actor.from_request(request).origin
        obj.delete()


class InvitationForm(forms.ModelForm):  # type: ignore[type-arg]  # as above
    provider = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        choices=lambda: [c for c in _list_provider_choices() if conf.providers()[c[0]].provisioning == "invitation"],
        help_text=gettext_lazy("Providers with the provisioning invitation."),
    )

    class Meta:
        model = ActivationCode
        fields = ("user",)


def _redeemable_codes() -> QuerySet[Any]:
    return ActivationCode.objects.redeemable(now=clock.now()).order_by().values("pk")


ActivationCodeStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "waiting": (gettext_lazy("waiting"), lambda rows: rows.filter(pk__in=_redeemable_codes())),
        "redeemed": (gettext_lazy("redeemed"), lambda rows: rows.exclude(redeemed_at=None)),
        "over": (
            gettext_lazy("revoked or expired"),
            lambda rows: rows.filter(redeemed_at=None).exclude(pk__in=_redeemable_codes()),
        ),
    },
)


@admin.register(ActivationCode)
class ActivationCodeAdmin(ErrorMessageAdmin, CascadeOnlyAdmin):
    """Adding creates a code and shows it. The actions revoke codes or replace one."""

    form = InvitationForm
    raw_id_fields = ("user",)
    list_display = ("user", "provider", "state", "expires_at", "created_at", "created_by")
    list_filter = (ActivationCodeStateFilter,)
    list_select_related = ("user",)
    search_help_text = gettext_lazy("A user name, in full.")
    ordering = ("-id",)
    actions = ("revoke", "make_another")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (f"user__{get_user_model().USERNAME_FIELD}__exact",)

    def get_fields(self, request: HttpRequest, obj: ActivationCode | None = None) -> Any:
        return (*self.list_display, "redeemed_at", "revoked_at") if obj else ("provider", "user")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_issue_permission(request)

    def has_issue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.issue_activationcode")

    @admin.display(description=gettext_lazy("state"))
    def state(self, code: ActivationCode) -> str:
        if code.redeemed_at is not None:
            return _("redeemed")
        if code.revoked_at is not None:
            return _("revoked")
        return _("waiting") if code.expires_at > clock.now() else _("expired")

    @sensitive_variables()
    def save_model(self, request: HttpRequest, obj: ActivationCode, form: Any, change: bool) -> None:
        """Invite, in the form's transaction. Raises: PhiOidcError."""
        provider = form.cleaned_data["provider"]
        obj.invitation = self._create_invitation(request, obj.user, provider)  # type: ignore[attr-defined]  # for response_add
        obj.pk = ActivationCode.objects.unused().get(user=obj.user, provider=provider).pk
        obj.refresh_from_db()

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Show the code in this response only. It is not stored in a session or cookie."""
        return self._render_code_page(request, obj.invitation, obj)

    @admin.action(description=gettext_lazy("Revoke"), permissions=["issue"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ActivationCode]) -> None:
        pks = list(queryset.order_by("pk").values_list("pk", flat=True)[: MAX_CODES_REVOKED_AT_ONCE + 1])
        if len(pks) > MAX_CODES_REVOKED_AT_ONCE:
            message = _("You selected more than %(most)d codes. None was revoked. Select fewer.")
            self.message_user(request, message % {"most": MAX_CODES_REVOKED_AT_ONCE}, messages.ERROR)
            return
        codes, origin = ActivationCode.objects.filter(pk__in=pks), Actor.from_request(request).origin
        self.message_user(request, revoke_selected_codes(codes, origin=origin, now=clock.now()), messages.SUCCESS)

    @admin.action(description=gettext_lazy("Replace by a new code"), permissions=["issue"])
    @method_decorator(sensitive_variables())
    def make_another(self, request: HttpRequest, queryset: QuerySet[ActivationCode]) -> HttpResponse | None:
        """Invite the user of the one selected code again, and show the new code."""
        codes = list(queryset.select_related("user")[:2])
        if len(codes) != 1:
            self.message_user(request, _("Select one code: a new code is shown on its own page."), messages.ERROR)
            return None
        (code,) = codes
        try:
            return self._render_code_page(request, self._create_invitation(request, code.user, code.provider), code)
        except PhiOidcError as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return None

    def _create_invitation(self, request: HttpRequest, user: Any, provider: str) -> Invitation:
        """Raises: PhiOidcError; ResourcePermissionDenied."""
        if not can_invite(request.user, user):
            raise ResourcePermissionDenied(f"user/{user.pk}")
        return invite_user(user, provider, origin=Actor.from_request(request).origin, now=clock.now())

    @sensitive_variables()
    def _render_code_page(self, request: HttpRequest, invitation: Invitation, code: ActivationCode) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("The activation code"),
            "invitation": invitation,
            "user_invited": code.user,
            "provider": code.provider,
        }
        response = TemplateResponse(request, "admin/django_phi_oidc/activationcode/code.html", context)
        response["Cache-Control"] = "no-store"
        return response


def invite_user(user: Any, provider_name: str, *, origin: Origin, now: datetime) -> Invitation:
    """Create an activation code for user. Raises: PhiOidcError. NOT checked: the privileges of user."""
    provider = conf.providers().get(provider_name)
    if provider is None:
        raise InvitationRefused(gettext_noop("There is no provider %(provider)s."), provider=provider_name)
    key, lifetime = keyring.get_keys("subject")[0], conf.activation_lifetime()
    (invitation,) = create_invitations([user.pk], provider=provider, key=key, lifetime=lifetime, origin=origin, now=now)
    return invitation


def revoke_selected_codes(codes: ActivationCodeQuerySet, *, origin: Origin, now: datetime) -> str:
    """Revoke those of these codes that were not redeemed, and return a message."""
    count = revoke_activation_codes(codes, reason="withdrawn", origin=origin, now=now)
    return ngettext("%(count)d code was revoked.", "%(count)d codes were revoked.", count) % {"count": count}
