"""Stored claims, their retention report, and legal holds in the admin.

No value is shown, decrypted, or read from the database.
"""

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import ForeignKey, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import conf
from .._internal import clock
from .._internal.admin_filters import create_choice_filter, create_state_filter
from .._internal.visible_text import validate_visible_text
from ..access.emergency.forms import get_purpose_label
from ..audit.admin_base import CascadeOnlyAdmin, ErrorMessageAdmin, get_error_message
from ..audit.outbox import batch_delivery
from ..audit.request_context import Actor
from ..errors import HeldForLegalReasons, KeyMissing, PhiOidcError
from ..fields import MASK
from ..subjects.models import PairwiseSubject
from .accounting_suspensions import SUSPENDABLE_PURPOSES, AccountingSuspension, find_suspension_fault
from .categories import list_hidden_names
from .legal_holds import list_active_holds, place_hold, release_hold
from .models import NO_SESSION, LegalHold, StoredClaim
from .retention import scrub_user
from .retention_report import create_retention_report, find_key_summary, get_overdue_condition

MAX_PERSONS = 1_000
"""Persons whose claims one request may erase."""

if TYPE_CHECKING:
    HoldModelForm = forms.ModelForm[LegalHold]
    SubjectChoiceField = forms.ModelChoiceField[PairwiseSubject]
else:
    HoldModelForm, SubjectChoiceField = forms.ModelForm, forms.ModelChoiceField


def _list_purposes() -> list[tuple[str, str]]:
    purposes = sorted({claim.purpose for claim in conf.claims().values() if claim.retention is not None})
    return [(purpose, f"{purpose}: {get_purpose_label(purpose)}") for purpose in purposes]


def _filter_held(rows: QuerySet[Any]) -> QuerySet[Any]:
    # Through the few holds, because no index covers held claims.
    now = clock.now()
    return rows.filter(subject__in=list_active_holds(now=now).values("subject"), held_until__gt=now)


ClaimNameFilter = create_choice_filter(
    gettext_lazy("name"),
    "name",
    lambda: [(name, name) for name, claim in sorted(conf.claims().items()) if claim.retention is not None],
)
ClaimPurposeFilter = create_choice_filter(gettext_lazy("purpose"), "purpose", _list_purposes)
ClaimEndFilter = create_state_filter(
    gettext_lazy("end"),
    "end",
    {
        "overdue": (gettext_lazy("overdue"), lambda rows: rows.filter(get_overdue_condition(now=clock.now()))),
        "held": (gettext_lazy("on legal hold"), _filter_held),
        "session": (gettext_lazy("with its session"), lambda rows: rows.filter(expires_at=None)),
    },
)


class _PersonSearchAdmin(CascadeOnlyAdmin):
    list_select_related = ("subject",)
    search_fields = ("subject",)
    search_help_text = gettext_lazy("Search by a complete subject UUID or user name.")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows of the person with that subject UUID or user name; all rows for an empty term."""
        if not (term := search_term.strip()):
            return queryset, False
        # Two queries, because no index serves an OR over two tables. A user name may look like a UUID.
        subjects = PairwiseSubject.objects.filter(**{f"user__{get_user_model().USERNAME_FIELD}": term})
        with suppress(ValueError):
            subjects = PairwiseSubject.objects.filter(uuid=UUID(term)) or subjects
        return queryset.filter(subject__in=[subject.pk for subject in subjects]), False


@admin.register(StoredClaim)
class StoredClaimAdmin(_PersonSearchAdmin):
    list_display = ("name", "subject", "purpose", "expires_at", "held_until", "obtained_at", "masked")
    list_filter = (ClaimNameFilter, ClaimPurposeFilter, ClaimEndFilter)
    fields = (*list_display, "session_display", "bucket")
    # Columns with an index.
    ordering = ("-id",)
    sortable_by = ("expires_at",)
    actions = ("erase_now",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredClaim]:
        return super().get_queryset(request).defer("value")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return rows as above, without those whose category the user may not reveal."""
        queryset = queryset.exclude(name__in=list_hidden_names(request.user))
        return super().get_search_results(request, queryset, search_term)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        can_view = super().has_view_permission(request, obj)
        return can_view and (obj is None or obj.name not in list_hidden_names(request.user, obj.subject))

    @admin.display(description=gettext_lazy("session"))
    def session_display(self, claim: StoredClaim) -> str:
        """Return the session that it expires with, or the empty value for a claim that outlives sessions."""
        return self.get_empty_value_display() if claim.session == NO_SESSION else str(claim.session)

    @admin.display(description=gettext_lazy("value"))
    def masked(self, claim: StoredClaim) -> str:
        return MASK

    def get_urls(self) -> list[Any]:
        """Put the report's URL first; Django's own patterns would match it as a primary key."""
        view = self.admin_site.admin_view(self.report_view)
        return [path("report/", view, name="django_phi_oidc_storedclaim_report"), *super().get_urls()]

    def report_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the retention report."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        keys, is_unavailable = None, False
        try:
            keys = find_key_summary()
        except KeyMissing:
            is_unavailable = True
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Retention report"),
            "report": create_retention_report(now=clock.now()),
            "keys": keys,
            "keys_are_away": is_unavailable,
            "sees_holds": request.user.has_perm("django_phi_oidc.view_legalhold"),
        }
        return TemplateResponse(request, "admin/django_phi_oidc/storedclaim/report.html", context)

    def has_scrub_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.scrub_storedclaim")

    @admin.action(description=gettext_lazy("Erase all claims of these persons now"), permissions=["scrub"])
    def erase_now(self, request: HttpRequest, queryset: QuerySet[StoredClaim]) -> None:
        """Erase all claims of each person with a selected claim, except on legal hold; one transaction per person."""
        user_ids = queryset.order_by().values_list("subject__user", flat=True).distinct()
        users = get_user_model()._base_manager.filter(pk__in=user_ids)[: MAX_PERSONS + 1]
        if len(users) > MAX_PERSONS:
            message = _("Nothing was erased, because more than %(most)d persons were selected. Select fewer.")
            self.message_user(request, message % {"most": MAX_PERSONS}, messages.ERROR)
            return
        origin, erased, held = Actor.from_request(request).origin, 0, 0
        with batch_delivery():
            for user in users:
                try:
                    erased += scrub_user(user, origin=origin, now=clock.now())
                except HeldForLegalReasons:
                    held += 1
        message = _("Erased claims: %(claims)d, of persons: %(persons)d.")
        self.message_user(request, message % {"claims": erased, "persons": len(users) - held}, messages.SUCCESS)
        if held:
            message = ngettext(
                "%(held)d person is on legal hold, so none of their claims were erased.",
                "%(held)d persons are on legal hold, so none of their claims were erased.",
                held,
            )
            self.message_user(request, message % {"held": held}, messages.WARNING)


class SubjectField(SubjectChoiceField):
    """A subject, by its UUID, as in the audit log, or by its primary key, as from the popup."""

    def to_python(self, value: Any) -> PairwiseSubject | None:
        try:
            uuid = UUID(str(value).strip())
        except ValueError:
            return super().to_python(value)
        subject = PairwiseSubject.objects.filter(uuid=uuid).first()
        if subject is None:
            raise forms.ValidationError(self.error_messages["invalid_choice"], "invalid_choice", {"value": value})
        return subject


class FutureUntilMixin:
    """Refuses a time in the past in the form field `until`."""

    cleaned_data: dict[str, Any]

    def clean_until(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= clock.now():
            raise forms.ValidationError(_("This time is in the past."))
        return until


class LegalHoldForm(FutureUntilMixin, HoldModelForm):
    suspended_purposes = forms.MultipleChoiceField(
        label=gettext_lazy("Purposes of these disclosures"),
        choices=lambda: [(code, f"{code}: {get_purpose_label(code)}") for code in SUSPENDABLE_PURPOSES],
        initial=["HLEGAL"],
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )

    def clean_reason(self) -> str:
        reason = str(self.cleaned_data["reason"])
        validate_visible_text(reason)
        return reason

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        suspension = self.build_suspension()
        if suspension is None and (cleaned.get("agency") or cleaned.get("oral_statement_at")):
            self.add_error("suspended_until", _("Until when is the accounting suspended?"))
        fault = suspension and find_suspension_fault(suspension, hold_until=cleaned.get("until"), now=clock.now())
        if fault:
            self.add_error("suspended_until", _(fault))
        return cleaned

    def build_suspension(self) -> AccountingSuspension | None:
        """Return the suspension that the form describes; None without an end."""
        data = self.cleaned_data
        if not data.get("suspended_until"):
            return None
        return AccountingSuspension(
            until=data["suspended_until"],
            agency=data.get("agency", ""),
            purposes=data.get("suspended_purposes", ()),
            oral_statement_at=data.get("oral_statement_at"),
        )

    class Meta:
        model = LegalHold
        fields = (
            *("subject", "reason", "until"),
            *("suspended_until", "suspended_purposes", "agency", "oral_statement_at"),
        )
        help_texts = {  # noqa: RUF012 -- Django's own form of it
            "subject": gettext_lazy("The subject's UUID or primary key."),
            "reason": gettext_lazy("For example a case number. It is not recorded in the audit log."),
            "until": gettext_lazy("Leave empty to hold until released."),
            "suspended_until": gettext_lazy(
                "Until then, the person’s accounting leaves out the disclosures to an agency. Leave empty to leave out "
                "none."
            ),
            "oral_statement_at": gettext_lazy("Leave empty if the agency stated it in writing."),
        }


def _active_holds() -> QuerySet[Any]:
    return list_active_holds(now=clock.now()).order_by().values("pk")


LegalHoldStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "active": (gettext_lazy("active"), lambda rows: rows.filter(pk__in=_active_holds())),
        "over": (gettext_lazy("ended"), lambda rows: rows.exclude(pk__in=_active_holds())),
    },
)


@admin.register(LegalHold)
class LegalHoldAdmin(ErrorMessageAdmin, _PersonSearchAdmin):
    """Holds are placed here and released by an action. They are never changed or deleted."""

    form = LegalHoldForm
    raw_id_fields = ("subject",)
    list_display = ("reason", "subject", "is_active", "until", "placed_at", "placed_by")
    list_filter = (LegalHoldStateFilter,)
    ordering = ("-placed_at",)
    actions = ("release",)

    def get_fields(self, request: HttpRequest, obj: LegalHold | None = None) -> Any:
        suspension = LegalHoldForm.Meta.fields[3:]
        shown = ("id", *self.list_display, "released_at", "released_by", *suspension)
        return shown if obj else LegalHoldForm.Meta.fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.add_legalhold")

    def has_release_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.change_legalhold")

    @admin.display(boolean=True, description=gettext_lazy("active"))
    def is_active(self, hold: LegalHold) -> bool:
        return hold.released_at is None and (hold.until is None or hold.until > clock.now())

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **{**kwargs, "form_class": SubjectField})
        if field is not None:
            # The popup's script needs the first class; the second one makes the field wide enough for a UUID.
            field.widget.attrs["class"] = "vForeignKeyRawIdAdminField vUUIDField"
        return field

    def save_model(self, request: HttpRequest, obj: LegalHold, form: Any, change: bool) -> None:
        """Place the hold in the form's transaction. Raises: PhiOidcError; DoesNotExist if the subject was deleted."""
        origin = Actor.from_request(request).origin
        fields = {"reason": obj.reason, "until": obj.until, "suspension": form.build_suspension()}
        hold = place_hold(obj.subject.uuid, **fields, origin=origin, now=clock.now())
        obj.pk = hold.pk
        obj.refresh_from_db()

    @admin.action(description=gettext_lazy("Release"), permissions=["release"])
    def release(self, request: HttpRequest, queryset: QuerySet[LegalHold]) -> None:
        """Release the selected holds, each in its own transaction."""
        origin, released = Actor.from_request(request).origin, 0
        try:
            for pk in queryset.order_by("placed_at").values_list("pk", flat=True):
                released += release_hold(pk, origin=origin, now=clock.now())
        except PhiOidcError as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
        message = ngettext("%(count)d hold was released.", "%(count)d holds were released.", released)
        self.message_user(request, message % {"count": released}, messages.SUCCESS)
