"""Admin of SCIM clients: create, rotate and revoke them. A token is shown once, in the response to
its creation.
"""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from ..._internal import clock
from ..._internal.admin_columns import create_time_column, format_utc
from ...audit.admin_actions import RowActionsAdmin, confirmed_action
from ...audit.admin_base import CascadeOnlyAdmin, ErrorMessageAdmin
from ...audit.bounded_lists import CappedPaginator
from ...audit.request_context import Actor
from ...provider.labels import get_provider_label, list_provider_choices
from ..common.admin_fields import keep_dates_together
from . import conf
from .clients import (
    DEFAULT_LIFETIME,
    DEFAULT_OVERLAP,
    IssuedToken,
    create_client,
    revoke_client,
    rotate_token,
)
from .models import SCIMClient


def _list_scim_providers() -> list[tuple[str, str]]:
    scim_providers = []
    for choice in list_provider_choices():
        if choice[0] in conf.scim():
            scim_providers.append(choice)
    return scim_providers


class SCIMClientForm(forms.ModelForm):  # type: ignore[type-arg]  # only the stubs have type arguments
    name = forms.RegexField(
        r"[A-Za-z0-9][A-Za-z0-9._-]*",
        max_length=64,
        label=gettext_lazy("Name"),
        help_text=gettext_lazy(
            "Letters, digits, and . _ - after the first. The events of the client have it."
        ),
    )
    provider = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        choices=_list_scim_providers,
        help_text=gettext_lazy(
            "The client manages the accounts of this provider, and sees no others."
        ),
    )

    class Meta:
        model = SCIMClient
        fields = ("name", "provider")


def _is_live(client: SCIMClient) -> bool:
    return client.revoked_at is None


def _describe_skipped(count: int) -> str:
    message = ngettext(
        "%(count)d client was skipped, because it was revoked.",
        "%(count)d clients were skipped, because they were revoked.",
        count,
    )
    return message % {"count": count}


@admin.register(SCIMClient)
class SCIMClientAdmin(RowActionsAdmin, ErrorMessageAdmin, CascadeOnlyAdmin):
    """Adding creates a client and shows its token. The actions show a new token, or revoke
    clients.
    """

    form = SCIMClientForm
    list_display = ("name", "provider_label", "state", "last_used")
    sortable_by = ()
    ordering = ("name",)
    paginator = CappedPaginator
    show_full_result_count = False
    actions = ("rotate", "revoke")
    operation_permissions = (("add", "manage_scimclient"),)

    created = create_time_column("created_at", gettext_lazy("Created (UTC)"))

    def get_fieldsets(self, request: HttpRequest, obj: SCIMClient | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("name", "provider")})]
        return [(None, {"fields": ("name", "provider_label", "state", "created", "last_used")})]

    @admin.display(description=gettext_lazy("Provider"))
    def provider_label(self, row: SCIMClient) -> str:
        return get_provider_label(row.provider)

    @admin.display(description=gettext_lazy("State"))
    def state(self, row: SCIMClient) -> str:
        if row.revoked_at is not None:
            return _("Revoked")
        valid = (
            row.tokens.filter(revoked_at=None, expires_at__gt=clock.now())
            .order_by("-expires_at")
            .first()
        )
        if valid is None:
            return _("No valid token")
        return keep_dates_together(
            _("Token valid until %(time)s UTC") % {"time": format_utc(valid.expires_at)}
        )

    @admin.display(description=gettext_lazy("Last used (UTC)"))
    def last_used(self, row: SCIMClient) -> str:
        used = row.tokens.exclude(last_used_at=None).order_by("-last_used_at").first()
        if used and used.last_used_at:
            return keep_dates_together(format_utc(used.last_used_at))
        return _("Never")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_manage_permission(request)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("phi_oidc_scim.manage_scimclient")

    def name_row(self, request: HttpRequest, row: SCIMClient) -> str:
        return row.name

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, without the button to add a client if SCIM is off."""
        is_possible = self.has_add_permission(request) and bool(_list_scim_providers())
        return super().changelist_view(
            request, {**(extra_context or {}), "has_add_permission": is_possible}
        )

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Offer one button to save, because the response is the page with the token."""
        context.update(show_save_and_add_another=False, show_save_and_continue=False)
        return super().render_change_form(request, context, *args, **kwargs)

    @sensitive_variables()
    def save_model(self, request: HttpRequest, obj: SCIMClient, form: Any, change: bool) -> None:
        """Create the client with its first token, in the form's transaction."""
        origin = Actor.from_request(request).origin
        obj.issued = create_client(  # type: ignore[attr-defined]  # for response_add
            obj.name,
            provider=obj.provider,
            lifetime=DEFAULT_LIFETIME,
            origin=origin,
            now=clock.now(),
        )
        obj.pk = obj.issued.client.pk  # type: ignore[attr-defined]  # as above

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the token in this response only. It is not stored in a session or cookie."""
        return self._render_token_page(request, obj.issued)

    @confirmed_action(
        description=gettext_lazy("Show a new token"),
        permissions=["manage"],
        can_apply=_is_live,
        ask=lambda count: _("Create a new token for this client?"),
        consequence=gettext_lazy(
            "The new token is shown once. The last one stays valid for 24 hours, others end now."
        ),
        describe_skipped=_describe_skipped,
        max_rows=1,
    )
    @method_decorator(sensitive_variables())
    def rotate(self, request: HttpRequest, rows: Sequence[SCIMClient]) -> HttpResponse:
        """Show a new token of the one selected client."""
        (client,) = rows
        origin = Actor.from_request(request).origin
        return self._render_token_page(
            request,
            rotate_token(
                client,
                lifetime=DEFAULT_LIFETIME,
                overlap=DEFAULT_OVERLAP,
                origin=origin,
                now=clock.now(),
            ),
        )

    @confirmed_action(
        description=gettext_lazy("Revoke"),
        permissions=["manage"],
        can_apply=_is_live,
        ask=lambda count: (
            ngettext("Revoke %(count)d client?", "Revoke %(count)d clients?", count)
            % {"count": count}
        ),
        consequence=gettext_lazy(
            "Their tokens are no longer valid. The accounts stay as they are."
        ),
        describe_skipped=_describe_skipped,
    )
    def revoke(self, request: HttpRequest, rows: Sequence[SCIMClient]) -> None:
        """Revoke the selected clients."""
        for client in rows:
            revoke_client(client, origin=Actor.from_request(request).origin, now=clock.now())
        count = len(rows)
        message = ngettext(
            "%(count)d client was revoked.", "%(count)d clients were revoked.", count
        )
        self.message_user(request, message % {"count": count}, messages.SUCCESS)

    @sensitive_variables()
    def _render_token_page(self, request: HttpRequest, issued: IssuedToken) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("The token"),
            "issued": issued,
            "provider": get_provider_label(issued.client.provider),
        }
        response = TemplateResponse(request, "admin/phi_oidc_scim/scimclient/token.html", context)
        response["Cache-Control"] = "no-store"
        return response
