"""Who is linked to which account, and who is invited to one: lists to read, forms that link and invite.

No digest and no `sub` is shown; an activation code once, on the page that answers its making.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any
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
from ..audit.admin_base import CascadeOnlyAdmin, ErrorMessageAdmin, ResourcePermissionDenied, get_error_message
from ..audit.request_context import Actor
from ..crypto import keyring
from ..errors import HeldForLegalReasons, InvitationRefused, PhiOidcError
from .invitations import Invitation, create_invitations, has_more_privileges, revoke_activation_codes
from .linking import link_existing_user
from .models import ActivationCode, PairwiseSubject

MAX_CODES_REVOKED_AT_ONCE = 1_000
"""Revoked by one request."""

if TYPE_CHECKING:
    SubjectForm = forms.ModelForm[PairwiseSubject]
    ActivationCodeForm = forms.ModelForm[ActivationCode]
else:
    SubjectForm = ActivationCodeForm = forms.ModelForm


def _list_provider_choices() -> list[tuple[str, str]]:
    return [(name, declared.label or name) for name, declared in conf.providers().items()]


def _list_invitation_provider_choices() -> list[tuple[str, str]]:
    declared = conf.providers()
    return [(name, label) for name, label in _list_provider_choices() if declared[name].provisioning == "invitation"]


def _validate_not_more_privileged(request: HttpRequest, user: Any) -> None:
    """Whoever links or invites says who signs in: to that account too. Raises: RefusedFor."""
    if has_more_privileges(user, request.user):
        raise ResourcePermissionDenied(f"user/{user.pk}")


class SubjectLinkForm(SubjectForm):
    """Asks whom to link. The `sub` is not echoed, and does not come back with a page that shows a fault."""

    provider = forms.ChoiceField(label=gettext_lazy("Provider"), choices=_list_provider_choices)
    sub = forms.CharField(
        label=gettext_lazy("Subject (sub)"),
        max_length=255,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "vTextField"}),
        help_text=gettext_lazy(
            "What the provider calls this person towards this portal. It is not stored, nor shown again."
        ),
    )

    class Meta:
        model = PairwiseSubject
        fields = ("user",)


@admin.register(PairwiseSubject)
class PairwiseSubjectAdmin(ErrorMessageAdmin):
    """Adding links a person to an account, deleting unlinks one; nothing can be changed."""

    form = SubjectLinkForm
    raw_id_fields = ("user",)
    list_display = ("uuid", "user", "issuer", "first_seen_at", "last_seen_at")
    list_select_related = ("user",)
    search_fields = ("uuid", "user")
    search_help_text = gettext_lazy("A subject's UUID or a user name, in full.")
    show_full_result_count = False
    # One at a time: each ends sessions, and asks the provider to revoke their tokens.
    actions = None

    def get_fields(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> Any:
        return self.list_display if obj else ("provider", "user", "sub")

    def has_change_permission(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PairwiseSubject], search_term: str
    ) -> tuple[QuerySet[PairwiseSubject], bool]:
        """Answer by the index: Django's own search compares a UUID as text."""
        if not (term := search_term.strip()):
            return queryset, False
        with suppress(ValueError):
            found = queryset.filter(uuid=UUID(term))
            if found.exists():
                return found, False
        # A user name may look like a UUID.
        return queryset.filter(**{f"user__{get_user_model().USERNAME_FIELD}": term}), False

    @method_decorator(sensitive_post_parameters("sub"))
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Link, or say why not."""
        return super().add_view(request, form_url, extra_context)

    def get_retry_url(self, request: HttpRequest) -> str:
        """Return the form with all that it had but the `sub`."""
        kept = {name: request.POST.get(name, "") for name in ("provider", "user")}
        return f"{request.path}?{urlencode(kept)}"

    def save_model(self, request: HttpRequest, obj: PairwiseSubject, form: Any, change: bool) -> None:
        """Link, in the transaction of the form. Raises: PhiOidcError; DoesNotExist when the user is gone."""
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
        """Unlink, or say why not: the page has shown a legal hold that lasts, but one may have come since."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except HeldForLegalReasons as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def delete_model(self, request: HttpRequest, obj: PairwiseSubject) -> None:
        """Unlink, in the transaction of the page."""
        obj.deleted_by = Actor.from_request(request).origin
        obj.delete()


class InvitationForm(ActivationCodeForm):
    """Asks whom to invite, and where they sign in."""

    provider = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        choices=_list_invitation_provider_choices,
        help_text=gettext_lazy("Those whose provisioning is invitation."),
    )

    class Meta:
        model = ActivationCode
        fields = ("user",)


class ActivationCodeStateFilter(admin.SimpleListFilter):
    """By what has become of the code."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("waiting", _("waiting")), ("redeemed", _("redeemed")), ("over", _("revoked or expired"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ActivationCode]) -> QuerySet[ActivationCode]:
        waiting = ActivationCode.objects.redeemable(now=clock.now()).order_by().values("pk")
        match self.value():
            case "waiting":
                return queryset.filter(pk__in=waiting)
            case "redeemed":
                return queryset.exclude(redeemed_at=None)
            case "over":
                return queryset.filter(redeemed_at=None).exclude(pk__in=waiting)
        return queryset


@admin.register(ActivationCode)
class ActivationCodeAdmin(ErrorMessageAdmin, CascadeOnlyAdmin):
    """Who is invited to which account. Adding makes a code, and shows it; the actions revoke it, or make another."""

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
        """Say whether this person may make and revoke codes."""
        return request.user.has_perm("django_phi_oidc.issue_activationcode")

    @admin.display(description=gettext_lazy("state"))
    def state(self, code: ActivationCode) -> str:
        """Return what has become of it."""
        if code.redeemed_at is not None:
            return _("redeemed")
        if code.revoked_at is not None:
            return _("revoked")
        return _("waiting") if code.expires_at > clock.now() else _("expired")

    @sensitive_variables()
    def save_model(self, request: HttpRequest, obj: ActivationCode, form: Any, change: bool) -> None:
        """Invite, in the transaction of the form. Raises: PhiOidcError."""
        provider = form.cleaned_data["provider"]
        obj.shown = self._create_invitation(request, obj.user, provider)  # type: ignore[attr-defined]  # once, by response_add
        made = ActivationCode.objects.unused().get(user=obj.user, provider=provider)
        obj.pk = made.pk
        obj.refresh_from_db()

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Show the code, here and never again: neither a session nor a cookie has it."""
        return self._render_code_page(request, obj.shown, obj)

    @admin.action(description=gettext_lazy("Revoke"), permissions=["issue"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ActivationCode]) -> None:
        """Revoke the chosen codes that nobody has redeemed."""
        pks = list(queryset.order_by("pk").values_list("pk", flat=True)[: MAX_CODES_REVOKED_AT_ONCE + 1])
        if len(pks) > MAX_CODES_REVOKED_AT_ONCE:
            told = _("These are more than %(most)d codes: none was revoked. Choose fewer.")
            self.message_user(request, told % {"most": MAX_CODES_REVOKED_AT_ONCE}, messages.ERROR)
            return
        codes, origin = ActivationCode.objects.filter(pk__in=pks), Actor.from_request(request).origin
        revoked = revoke_activation_codes(codes, reason="withdrawn", origin=origin, now=clock.now())
        told = ngettext("%(count)d code was revoked.", "%(count)d codes were revoked.", revoked)
        self.message_user(request, told % {"count": revoked}, messages.SUCCESS)

    @admin.action(description=gettext_lazy("Make another code, and revoke this one"), permissions=["issue"])
    @method_decorator(sensitive_variables())
    def make_another(self, request: HttpRequest, queryset: QuerySet[ActivationCode]) -> HttpResponse | None:
        """Invite the user of the one chosen code again, and show the new one."""
        chosen = list(queryset.select_related("user")[:2])
        if len(chosen) != 1:
            self.message_user(request, _("Choose one: each is shown on a page of its own."), messages.ERROR)
            return None
        (code,) = chosen
        try:
            return self._render_code_page(request, self._create_invitation(request, code.user, code.provider), code)
        except PhiOidcError as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return None

    def _create_invitation(self, request: HttpRequest, user: Any, provider: str) -> Invitation:
        """Raises: PhiOidcError; RefusedFor."""
        _validate_not_more_privileged(request, user)
        declared = conf.providers().get(provider)
        if declared is None:
            raise InvitationRefused(gettext_noop("There is no provider %(provider)s."), provider=provider)
        (invitation,) = create_invitations(
            [user.pk],
            provider=declared,
            key=keyring.get_keys("subject")[0],
            lifetime=conf.activation_lifetime(),
            origin=Actor.from_request(request).origin,
            now=clock.now(),
        )
        return invitation

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
