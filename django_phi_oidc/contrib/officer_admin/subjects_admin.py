"""Admin of subjects and activation codes: read-only lists, and forms to link and to invite a
person.

No digest and no `sub` is shown. An activation code is shown once, in the response to its creation.
"""

from collections.abc import Iterable, Sequence
from datetime import MAXYEAR, datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext, pgettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ... import conf
from ..._internal import clock
from ..._internal.admin_columns import (
    build_technical_fieldset,
    create_time_column,
    format_utc,
    keep_dates_together,
)
from ..._internal.admin_filters import create_state_filter
from ..._internal.bounded_lists import CappedPaginator
from ...audit.admin_actions import RowActionsAdmin, confirmed_action
from ...audit.admin_base import (
    CascadeOnlyAdmin,
    ErrorMessageAdmin,
    NamedRow,
    ResourcePermissionDenied,
    get_error_message,
)
from ...audit.events import Origin
from ...audit.request_context import Actor
from ...crypto import keyring
from ...errors import HeldForLegalReasons, InvitationRefused, PhiOidcError
from ...provider.labels import get_provider_label, list_provider_choices
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from ...subjects.people_admin import PeopleAdmin
from ..invitations import conf as invitations_conf
from ..invitations.csv_import.admin import INVITATIONS, LINKS, CSVImportMixin
from ..invitations.invitations import (
    Invitation,
    can_invite,
    create_invitations,
    has_more_privileges,
    revoke_activation_codes,
)
from ..invitations.models import ActivationCode, ActivationCodeQuerySet


def _list_invitation_providers() -> list[tuple[str, str]]:
    return [
        choice
        for choice in list_provider_choices()
        if conf.providers()[choice[0]].provisioning == "invitation"
    ]


def _validate_not_more_privileged(request: HttpRequest, user: Any) -> None:
    """An administrator who links a person decides who signs in as the user. Raises:
    ResourcePermissionDenied.
    """
    if has_more_privileges(user, request.user):
        raise ResourcePermissionDenied(f"user/{user.pk}")


class SubjectLinkForm(forms.ModelForm):  # type: ignore[type-arg]  # only the stubs have type arguments
    """Links a person to a user. The `sub` is not rendered, also not after a validation error."""

    provider = forms.ChoiceField(label=gettext_lazy("Provider"), choices=list_provider_choices)
    sub = forms.CharField(
        label=gettext_lazy("Subject (sub)"),
        max_length=255,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "vTextField"}),
        help_text=gettext_lazy(
            "The provider's identifier of this person for this portal. It is not stored or shown."
        ),
    )

    class Meta:
        model = PairwiseSubject
        fields = ("user",)


def _is_held(subject: PairwiseSubject) -> bool:
    return subject.held_until is not None and subject.held_until > clock.now()


@admin.register(PairwiseSubject)
@method_decorator(sensitive_post_parameters("sub"), name="add_view")
class PairwiseSubjectAdmin(CSVImportMixin, PeopleAdmin, ErrorMessageAdmin):
    """Adding links a person to a user, deleting unlinks one. Nothing can be changed."""

    csv_import = LINKS
    form = SubjectLinkForm
    raw_id_fields = ("user",)
    account_lookup = "user"
    uuid_lookups = ("uuid",)
    list_display = ("person", "first_seen", "issuer", "last_seen")
    list_display_links = ("first_seen",)
    sortable_by = ()
    ordering = ("-pk",)
    paginator = CappedPaginator
    list_per_page = 50
    show_full_result_count = False
    # No deletion in bulk: each one ends sessions and revokes their tokens at the provider.
    actions = None

    first_seen = create_time_column("first_seen_at", gettext_lazy("First seen (UTC)"))
    last_seen = create_time_column("last_seen_at", gettext_lazy("Last seen (UTC)"))

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        """Return the column that opens the row, or that selects it in a popup."""
        if IS_POPUP_VAR in request.GET:
            return ("person",)
        return self.list_display_links

    def get_fieldsets(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("provider", "user", "sub")})]
        return [
            (None, {"fields": ("person", "issuer", "first_seen", "last_seen", "legal_hold")}),
            build_technical_fieldset("uuid"),
        ]

    def list_actors(self, row: PairwiseSubject) -> Iterable[str]:
        return (str(row.user_id),)

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: PairwiseSubject) -> str:
        return self.show_actor(row, str(row.user_id))

    def describe_row(self, row: PairwiseSubject) -> str:
        """Return person and issuer."""
        return f"{self.get_name(row, str(row.user_id))}, {row.issuer}"

    @admin.display(description=gettext_lazy("Legal hold"))
    def legal_hold(self, row: PairwiseSubject) -> str:
        """Return until when a hold prevents the deletion."""
        if not _is_held(row):
            return pgettext("list", "None")
        if row.held_until and row.held_until.year == MAXYEAR:
            return _("Until it is released: the person cannot be unlinked.")
        return _("Until %(time)s UTC: the person cannot be unlinked.") % {
            "time": format_utc(row.held_until)
        }

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Offer no deletion while a legal hold prevents it."""
        if (row := kwargs.get("obj")) is not None and _is_held(row):
            context["show_delete"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def has_change_permission(
        self, request: HttpRequest, obj: PairwiseSubject | None = None
    ) -> bool:
        return False

    def get_retry_url(self, request: HttpRequest) -> str:
        """Return the URL of the form with its previous input, except for the `sub`."""
        return f"{request.path}?{urlencode({name: request.POST.get(name, '') for name in ('provider', 'user')})}"  # noqa: E501

    def save_model(
        self, request: HttpRequest, obj: PairwiseSubject, form: Any, change: bool
    ) -> None:
        """Link, in the form's transaction. Raises: PhiOidcError; DoesNotExist if the user was
        deleted.
        """
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
        """Show an error if a legal hold was placed since the confirmation page, which shows holds,
        was rendered.
        """
        try:
            return super().delete_view(request, object_id, extra_context)
        except HeldForLegalReasons as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name the people. The names of claims could have a category that the user may not see."""
        _rows, counts, missing_permissions, protected = super().get_deleted_objects(objs, request)
        return self.describe_rows(request, list(objs)), counts, missing_permissions, protected

    def render_delete_form(self, request: HttpRequest, context: Any) -> HttpResponse:
        name = self.name_row(request, context["object"])
        # Django 6.1 names the object by `escaped_object`.
        context.update(object=NamedRow(context["object"], name), escaped_object=name)
        return super().render_delete_form(request, context)

    def delete_model(self, request: HttpRequest, obj: PairwiseSubject) -> None:
        obj.deleted_by = Actor.from_request(request).origin
        obj.delete()


class InvitationForm(forms.ModelForm):  # type: ignore[type-arg]  # as above
    provider = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        choices=_list_invitation_providers,
        help_text=gettext_lazy("Providers whose first sign-in requires an activation code."),
    )

    class Meta:
        model = ActivationCode
        fields = ("user",)


def _filter_redeemable(codes: Any) -> QuerySet[Any]:
    return codes.redeemable(now=clock.now())  # type: ignore[no-any-return]  # of an ActivationCodeQuerySet


def _is_redeemable(code: ActivationCode) -> bool:
    return code.redeemed_at is None and code.revoked_at is None and code.expires_at > clock.now()


def _is_replaceable(code: ActivationCode) -> bool:
    return code.redeemed_at is None and code.provider in dict(_list_invitation_providers())


def _describe_skipped_codes(count: int) -> str:
    message = ngettext(
        "%(count)d code was skipped, because it was redeemed, revoked or expired.",
        "%(count)d codes were skipped, because they were redeemed, revoked or expired.",
        count,
    )
    return message % {"count": count}


ActivationCodeStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "waiting": (gettext_lazy("Waiting"), _filter_redeemable),
        "redeemed": (gettext_lazy("Redeemed"), lambda rows: rows.exclude(redeemed_at=None)),
        "over": (
            gettext_lazy("Revoked or expired"),
            lambda rows: rows.filter(
                Q(revoked_at__isnull=False) | Q(expires_at__lte=clock.now()), redeemed_at=None
            ),
        ),
    },
)


@admin.register(ActivationCode)
class ActivationCodeAdmin(
    CSVImportMixin, PeopleAdmin, RowActionsAdmin, ErrorMessageAdmin, CascadeOnlyAdmin
):
    """Adding creates a code and shows it. The actions revoke codes or replace one."""

    csv_import = INVITATIONS
    form = InvitationForm
    raw_id_fields = ("user",)
    account_lookup = "user"
    list_display = ("person", "created", "provider_label", "state", "created_by_person")
    list_display_links = ("created",)
    list_filter = (ActivationCodeStateFilter,)
    sortable_by = ()
    ordering = ("-id",)
    actions = ("revoke", "make_another")
    operation_permissions = (("add", "issue_activationcode"),)

    created = create_time_column("created_at", gettext_lazy("Created (UTC)"))
    expires = create_time_column("expires_at", gettext_lazy("Expires (UTC)"))
    redeemed = create_time_column("redeemed_at", gettext_lazy("Redeemed (UTC)"))
    revoked = create_time_column("revoked_at", gettext_lazy("Revoked (UTC)"))

    def get_fieldsets(self, request: HttpRequest, obj: ActivationCode | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("provider", "user")})]
        times = ("created", "created_by_person", "expires", "redeemed", "revoked")
        return [(None, {"fields": ("person", "provider_label", "state", *times)})]

    def list_actors(self, row: ActivationCode) -> Iterable[str]:
        return str(row.user_id), row.created_by

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: ActivationCode) -> str:
        return self.show_actor(row, str(row.user_id))

    @admin.display(description=gettext_lazy("Created by"))
    def created_by_person(self, row: ActivationCode) -> str:
        return self.show_actor(row, row.created_by)

    @admin.display(description=gettext_lazy("Provider"))
    def provider_label(self, row: ActivationCode) -> str:
        return get_provider_label(row.provider)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_issue_permission(request)

    def has_issue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("phi_oidc_invitations.issue_activationcode")

    @admin.display(description=gettext_lazy("State"))
    def state(self, code: ActivationCode) -> str:
        if code.redeemed_at is not None:
            return _("Redeemed")
        if code.revoked_at is not None:
            return _("Revoked")
        if code.expires_at <= clock.now():
            return _("Expired")
        return keep_dates_together(
            _("Waiting until %(time)s UTC") % {"time": format_utc(code.expires_at)}
        )

    def describe_row(self, row: ActivationCode) -> str:
        """Return person and provider."""
        return f"{self.get_name(row, str(row.user_id))}, {get_provider_label(row.provider)}"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, without the button to add a code if no provider accepts one."""
        is_possible = self.has_add_permission(request) and bool(_list_invitation_providers())
        return super().changelist_view(
            request, {**(extra_context or {}), "has_add_permission": is_possible}
        )

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Offer one button to save, because the response is the page with the code."""
        context.update(show_save_and_add_another=False, show_save_and_continue=False)
        return super().render_change_form(request, context, *args, **kwargs)

    @sensitive_variables()
    def save_model(
        self, request: HttpRequest, obj: ActivationCode, form: Any, change: bool
    ) -> None:
        """Invite, in the form's transaction. Raises: PhiOidcError."""
        provider = form.cleaned_data["provider"]
        obj.invitation = self._create_invitation(request, obj.user, provider)  # type: ignore[attr-defined]  # for response_add
        obj.pk = ActivationCode.objects.unused().get(user=obj.user, provider=provider).pk
        obj.refresh_from_db()

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the code in this response only. It is not stored in a session or cookie."""
        return self._render_code_page(request, obj.invitation, obj)

    @confirmed_action(
        description=gettext_lazy("Revoke"),
        permissions=["issue"],
        can_apply=_is_redeemable,
        ask=lambda count: (
            ngettext("Revoke %(count)d code?", "Revoke %(count)d codes?", count) % {"count": count}
        ),
        consequence=gettext_lazy("The codes can no longer be redeemed."),
        describe_skipped=_describe_skipped_codes,
    )
    def revoke(self, request: HttpRequest, rows: Sequence[ActivationCode]) -> None:
        """Revoke the selected codes."""
        codes = ActivationCode.objects.filter(pk__in=[row.pk for row in rows])
        origin = Actor.from_request(request).origin
        self.message_user(
            request, revoke_selected_codes(codes, origin=origin, now=clock.now()), messages.SUCCESS
        )

    @confirmed_action(
        description=gettext_lazy("Replace by a new code"),
        permissions=["issue"],
        can_apply=_is_replaceable,
        ask=lambda count: _("Replace this code by a new one?"),
        consequence=gettext_lazy(
            "The new code is shown once. An earlier code for the same provider becomes invalid."
        ),
        describe_skipped=lambda count: _(
            "The code was redeemed, or its provider accepts no activation codes."
        ),
        max_rows=1,
    )
    @method_decorator(sensitive_variables())
    def make_another(
        self, request: HttpRequest, rows: Sequence[ActivationCode]
    ) -> HttpResponse | None:
        """Invite the user of the one selected code again, and show the new code."""
        (code,) = rows
        try:
            return self._render_code_page(
                request, self._create_invitation(request, code.user, code.provider), code
            )
        except PhiOidcError as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
            return None

    def _create_invitation(self, request: HttpRequest, user: Any, provider: str) -> Invitation:
        """Raises: PhiOidcError; ResourcePermissionDenied."""
        if not can_invite(request.user, user):
            raise ResourcePermissionDenied(f"user/{user.pk}")
        return invite_user(
            user, provider, origin=Actor.from_request(request).origin, now=clock.now()
        )

    @sensitive_variables()
    def _render_code_page(
        self, request: HttpRequest, invitation: Invitation, code: ActivationCode
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("The activation code"),
            "invitation": invitation,
            "user_invited": code.user,
            "provider": code.provider,
        }
        response = TemplateResponse(
            request, "admin/phi_oidc_invitations/activationcode/code.html", context
        )
        response["Cache-Control"] = "no-store"
        return response


def invite_user(user: Any, provider_name: str, *, origin: Origin, now: datetime) -> Invitation:
    """Create an activation code for user. Raises: PhiOidcError. NOT checked: the privileges of
    user.
    """
    provider = conf.providers().get(provider_name)
    if provider is None:
        raise InvitationRefused(
            gettext_noop("There is no provider %(provider)s."), provider=provider_name
        )
    key = keyring.get_keys("subject")[0]
    lifetime = invitations_conf.activation_lifetime()
    (invitation,) = create_invitations(
        [user.pk], provider=provider, key=key, lifetime=lifetime, origin=origin, now=now
    )
    return invitation


def revoke_selected_codes(codes: ActivationCodeQuerySet, *, origin: Origin, now: datetime) -> str:
    """Revoke those of these codes that were not redeemed, and return a message."""
    count = revoke_activation_codes(codes, reason="withdrawn", origin=origin, now=now)
    return ngettext("%(count)d code was revoked.", "%(count)d codes were revoked.", count) % {
        "count": count
    }
