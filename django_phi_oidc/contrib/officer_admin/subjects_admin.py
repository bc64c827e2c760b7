"""Admin of subjects: a read-only list, and a form to link a person.

No digest and no `sub` is shown.
"""

from collections.abc import Iterable
from datetime import MAXYEAR
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext
from django.views.decorators.debug import sensitive_post_parameters

from ... import conf
from ..._internal import clock
from ..._internal.admin_columns import create_time_column, format_utc
from ...audit.admin_base import (
    ErrorMessageAdmin,
    NamedRow,
    ResourcePermissionDenied,
    get_error_message,
)
from ...audit.bounded_lists import CappedPaginator
from ...audit.request_context import Actor
from ...crypto import keyring
from ...errors import HeldForLegalReasons
from ...provider.labels import list_provider_choices
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from ..common.admin_fields import build_technical_fieldset
from ..common.people_admin import PeopleAdmin
from ..common.privileges import has_more_privileges
from ..common.subject_list_pages import subject_list_pages


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


@method_decorator(sensitive_post_parameters("sub"), name="add_view")
class PairwiseSubjectAdmin(PeopleAdmin, ErrorMessageAdmin):
    """Adding links a person to a user, deleting unlinks one. Nothing can be changed."""

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

    def get_urls(self) -> list[Any]:
        """Return the URLs of the list, and of the pages that apps add to it."""
        urls: list[Any] = []
        for page in subject_list_pages:
            urls += page.build_urls(self)
        return [*urls, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with links to the pages that apps add to it."""
        pages = {"subject_list_pages": subject_list_pages}
        return super().changelist_view(request, {**pages, **(extra_context or {})})

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
        parameters = {
            "provider": request.POST.get("provider", ""),
            "user": request.POST.get("user", ""),
        }
        return f"{request.path}?{urlencode(parameters)}"

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
