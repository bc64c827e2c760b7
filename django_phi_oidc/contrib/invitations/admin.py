"""Admin of activation codes: a read-only list, and forms to invite a person.

A code is shown once, in the response to its creation.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ..._internal.admin_columns import create_time_column, format_utc
from ...audit.admin_actions import RowActionsAdmin, confirmed_action
from ...audit.admin_base import (
    CascadeOnlyAdmin,
    ErrorMessageAdmin,
    ResourcePermissionDenied,
    get_error_message,
)
from ...audit.events import Origin
from ...audit.request_context import Actor
from ...crypto import keyring
from ...errors import PhiOidcError
from ...provider.labels import get_provider_label, list_provider_choices
from ..common.admin_fields import keep_dates_together
from ..common.admin_filters import create_state_filter
from ..common.people_admin import PeopleAdmin
from ..subject_links.csv_import.admin import CSVImportPages
from . import conf as invitations_conf
from .errors import InvitationRefused
from .invitation_import import INVITATIONS
from .invitations import (
    Invitation,
    can_invite,
    create_invitations,
    revoke_activation_codes,
)
from .models import ActivationCode, ActivationCodeQuerySet


def _list_invitation_providers() -> list[tuple[str, str]]:
    invitation_providers = []
    for choice in list_provider_choices():
        if conf.providers()[choice[0]].provisioning == "invitation":
            invitation_providers.append(choice)
    return invitation_providers


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
class ActivationCodeAdmin(PeopleAdmin, RowActionsAdmin, ErrorMessageAdmin, CascadeOnlyAdmin):
    """Adding creates a code and shows it. The actions revoke codes or replace one."""

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

    def get_urls(self) -> list[Any]:
        """Return the URLs of the list, and of the pages of an import."""
        return [*CSVImportPages(self, INVITATIONS).build_urls(), *super().get_urls()]

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
