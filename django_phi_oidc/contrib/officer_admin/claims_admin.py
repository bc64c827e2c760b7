"""Stored claims, their retention report, and legal holds in the admin.

No value is shown, decrypted, or read from the database.
"""

from collections.abc import Iterable, Sequence
from datetime import MAXYEAR, datetime
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
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ... import conf
from ..._internal import clock
from ..._internal.admin_columns import (
    build_technical_fieldset,
    create_code_column,
    create_time_column,
    format_utc,
    keep_dates_together,
)
from ..._internal.admin_filters import create_choice_filter, create_state_filter
from ..._internal.visible_text import validate_visible_text
from ...audit.admin_actions import RowActionsAdmin, confirmed_action
from ...audit.admin_base import CascadeOnlyAdmin, ErrorMessageAdmin, get_error_message
from ...audit.descriptions import get_purpose_label
from ...audit.outbox import batch_delivery
from ...audit.request_context import Actor
from ...claims.categories import list_hidden_names
from ...claims.models import NO_SESSION, StoredClaim, get_claim_label, get_session_claim_condition
from ...claims.retention import scrub_user
from ...claims.retention_report import (
    create_retention_report,
    find_key_summary,
    get_overdue_condition,
)
from ...errors import HeldForLegalReasons, KeyMissing, PhiOidcError
from ...fields import MASK
from ...subjects.models import PairwiseSubject
from ...subjects.people_admin import PeopleAdmin
from ..legal_holds.accounting_suspensions import (
    SUSPENDABLE_PURPOSES,
    AccountingSuspension,
    find_suspension_fault,
)
from ..legal_holds.legal_holds import list_active_holds, place_hold, release_hold
from ..legal_holds.models import LegalHold

if TYPE_CHECKING:
    HoldModelForm = forms.ModelForm[LegalHold]
    SubjectChoiceField = forms.ModelChoiceField[PairwiseSubject]
else:
    HoldModelForm = forms.ModelForm
    SubjectChoiceField = forms.ModelChoiceField


def _list_purposes() -> list[tuple[str, str]]:
    purposes = sorted(
        {claim.purpose for claim in conf.claims().values() if claim.retention is not None}
    )
    return [(purpose, get_purpose_label(purpose)) for purpose in purposes]


def _filter_held(rows: QuerySet[Any]) -> QuerySet[Any]:
    # Through the few holds, because no index covers held claims.
    now = clock.now()
    return rows.filter(subject__in=list_active_holds(now=now).values("subject"), held_until__gt=now)


ClaimNameFilter = create_choice_filter(
    gettext_lazy("name"),
    "name",
    lambda: [
        (name, get_claim_label(name))
        for name, claim in sorted(conf.claims().items())
        if claim.retention is not None
    ],
)
ClaimPurposeFilter = create_choice_filter(gettext_lazy("purpose"), "purpose", _list_purposes)
ClaimEndFilter = create_state_filter(
    gettext_lazy("end"),
    "end",
    {
        "overdue": (
            gettext_lazy("Overdue"),
            lambda rows: rows.filter(get_overdue_condition(now=clock.now())),
        ),
        "held": (gettext_lazy("On legal hold"), _filter_held),
        "session": (gettext_lazy("With its session"), lambda rows: rows.filter(expires_at=None)),
    },
    indexed=("held", "session"),
)


class SubjectRowsAdmin(PeopleAdmin, RowActionsAdmin, CascadeOnlyAdmin):
    """Rows of subjects, with the name of the person."""

    account_lookup = "subject__user"
    uuid_lookups: tuple[str, ...] = ("subject__uuid",)
    list_select_related = ("subject",)

    def list_actors(self, row: Any) -> Iterable[str]:
        if row.subject:
            return (str(row.subject.user_id),)
        return ()

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: Any) -> str:
        if row.subject:
            return self.show_actor(row, str(row.subject.user_id))
        return _("Erased")

    @admin.display(description=gettext_lazy("Subject"))
    def subject_uuid(self, row: Any) -> str:
        return str(row.subject or self.get_empty_value_display())

    def describe_person(self, row: Any) -> str:
        """Return the name without a link. Requires: the people are attached."""
        if row.subject:
            return self.get_name(row, str(row.subject.user_id))
        return _("Erased")


@admin.register(StoredClaim)
class StoredClaimAdmin(SubjectRowsAdmin):
    list_display = ("person", "claim", "purpose_label", "retention", "obtained")
    list_display_links = ("claim",)
    list_filter = (ClaimNameFilter, ClaimPurposeFilter, ClaimEndFilter)
    fieldsets = (
        (None, {"fields": ("person", "claim", "masked", "purpose_label", "retention")}),
        (gettext_lazy("Times"), {"fields": ("obtained", "expires", "held")}),
        build_technical_fieldset(
            "name_code", "subject_uuid", "session_display", "purpose_code", "bucket"
        ),
    )
    sortable_by = ()
    actions = ("erase_now",)

    name_code = create_code_column("name", gettext_lazy("Name"))
    purpose_code = create_code_column("purpose", gettext_lazy("Purpose (code)"))
    obtained = create_time_column("obtained_at", gettext_lazy("Obtained (UTC)"))
    expires = create_time_column("expires_at", gettext_lazy("Expires (UTC)"))
    held = create_time_column("held_until", gettext_lazy("On legal hold until (UTC)"))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Put the newest claim first, or the one that is overdue for the longest time."""
        if request.GET.get("end") == "overdue":
            return ("expires_at",)
        return ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredClaim]:
        return super().get_queryset(request).defer("value")

    def attach_people(self, request: HttpRequest, rows: Iterable[Any]) -> None:
        """Look up also which sessions of claims are gone; as an annotation, the count of rows would
        compute it too.
        """
        rows = list(rows)
        pks = [row.pk for row in rows if row.expires_at is None]
        orphaned = StoredClaim.objects.filter(
            get_session_claim_condition(is_session_live=False), pk__in=pks
        )
        orphaned_pks = set(orphaned.values_list("pk", flat=True))
        for row in rows:
            row.is_orphaned = row.pk in orphaned_pks
        super().attach_people(request, rows)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return rows as above, without those whose category the user may not reveal."""
        queryset = queryset.exclude(name__in=list_hidden_names(request.user))
        return super().get_search_results(request, queryset, search_term)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        can_view = super().has_view_permission(request, obj)
        return can_view and (
            obj is None or obj.name not in list_hidden_names(request.user, obj.subject)
        )

    @admin.display(description=gettext_lazy("Name"))
    def claim(self, row: StoredClaim) -> str:
        return get_claim_label(row.name)

    @admin.display(description=gettext_lazy("Purpose"))
    def purpose_label(self, claim: StoredClaim) -> str:
        return get_purpose_label(claim.purpose)

    @admin.display(description=gettext_lazy("Retention"))
    def retention(self, claim: Any) -> str:
        return keep_dates_together(
            describe_retention(claim, is_orphaned=claim.is_orphaned, now=clock.now())
        )

    @admin.display(description=gettext_lazy("Session"))
    def session_display(self, claim: StoredClaim) -> str:
        """Return the session that it expires with, or the empty value for a claim that outlives
        sessions.
        """
        if claim.session == NO_SESSION:
            return self.get_empty_value_display()
        return str(claim.session)

    @admin.display(description=gettext_lazy("Value"))
    def masked(self, claim: StoredClaim) -> str:
        return MASK

    def describe_rows(self, request: HttpRequest, rows: Sequence[Any]) -> list[str]:
        """Return the persons, because all of their claims are erased."""
        self.attach_people(request, rows)
        return sorted({self.describe_person(row) for row in rows})

    def describe_row(self, row: StoredClaim) -> str:
        """Return person and name."""
        return f"{self.describe_person(row)}: {get_claim_label(row.name)}"

    def get_urls(self) -> list[Any]:
        """Put the report's URL first; Django's own patterns would match it as a primary key."""
        view = self.admin_site.admin_view(self.report_view)
        return [
            path("report/", view, name="django_phi_oidc_storedclaim_report"),
            *super().get_urls(),
        ]

    def report_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the retention report."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        report = create_retention_report(now=clock.now())
        keys = None
        is_unavailable = False
        try:
            keys = find_key_summary()
        except KeyMissing:
            is_unavailable = True
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Retention report"),
            "report": report,
            "claims": [
                (row, get_claim_label(row.name), get_purpose_label(row.purpose))
                for row in report.claims
            ],
            "keys": keys,
            "keys_are_away": is_unavailable,
            "sees_holds": request.user.has_perm("phi_oidc_legal_holds.view_legalhold"),
        }
        return TemplateResponse(request, "admin/django_phi_oidc/storedclaim/report.html", context)

    def has_scrub_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.scrub_storedclaim")

    @confirmed_action(
        description=gettext_lazy("Erase all claims of these persons now"),
        permissions=["scrub"],
        can_apply=lambda claim: not _is_held(claim),
        ask=lambda count: _("Erase all claims of these persons now?"),
        consequence=gettext_lazy(
            "All claims of these persons are permanently erased "
            "now, also those that you did not select."
        ),
        describe_skipped=lambda count: (
            ngettext(
                "%(count)d claim is on legal hold and was skipped.",
                "%(count)d claims are on legal hold and were skipped.",
                count,
            )
            % {"count": count}
        ),
    )
    def erase_now(self, request: HttpRequest, rows: Sequence[StoredClaim]) -> None:
        """Erase all claims of each person with a selected claim, except on legal hold; one
        transaction per person.
        """
        users = get_user_model()._base_manager.filter(pk__in={row.subject.user_id for row in rows})
        origin = Actor.from_request(request).origin
        erased = 0
        persons = 0
        held = 0
        with batch_delivery():
            for user in users:
                try:
                    erased += scrub_user(user, origin=origin, now=clock.now())
                    persons += 1
                except HeldForLegalReasons:
                    held += 1
        message = _("Erased claims: %(claims)d, of persons: %(persons)d.")
        self.message_user(
            request, message % {"claims": erased, "persons": persons}, messages.SUCCESS
        )
        if held:
            message = ngettext(
                "%(held)d person is on legal hold, so none of their claims were erased.",
                "%(held)d persons are on legal hold, so none of their claims were erased.",
                held,
            )
            self.message_user(request, message % {"held": held}, messages.WARNING)


def describe_retention(claim: StoredClaim, *, is_orphaned: bool, now: datetime) -> str:
    """Return when the claim is erased. is_orphaned: it was to end with a session, which is gone."""
    if claim.held_until is not None and claim.held_until > now:
        if claim.held_until.year == MAXYEAR:
            return _("On legal hold until it is released")
        return _("On legal hold until %(time)s UTC") % {"time": format_utc(claim.held_until)}
    if is_orphaned:
        return _("Overdue: its session has ended")
    if claim.expires_at is None and claim.retained_until > now:
        return _("Until the end of the session")
    if claim.ends_at <= now:
        return _("Overdue for %(duration)s") % {"duration": timesince(claim.ends_at, now, depth=1)}
    return _("%(duration)s left") % {"duration": timeuntil(claim.ends_at, now, depth=1)}


def _is_held(claim: StoredClaim) -> bool:
    return claim.held_until is not None and claim.held_until > clock.now()


class SubjectField(SubjectChoiceField):
    """A subject, by its UUID, as in the audit log, or by its primary key, as from the popup."""

    def to_python(self, value: Any) -> PairwiseSubject | None:
        try:
            uuid = UUID(str(value).strip())
        except ValueError:
            return super().to_python(value)
        subject = PairwiseSubject.objects.filter(uuid=uuid).first()
        if subject is None:
            raise forms.ValidationError(
                self.error_messages["invalid_choice"], "invalid_choice", {"value": value}
            )
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
        choices=lambda: [(code, get_purpose_label(code)) for code in SUSPENDABLE_PURPOSES],
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
        fault = suspension and find_suspension_fault(
            suspension, hold_until=cleaned.get("until"), now=clock.now()
        )
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
            "reason": gettext_lazy(
                "For example a case number. It is not recorded in the audit log."
            ),
            "until": gettext_lazy("Leave empty to hold until released."),
            "suspended_until": gettext_lazy(
                "Until then, the person’s accounting leaves out the disclosures to an agency. "
                "Leave empty to leave out none."
            ),
            "oral_statement_at": gettext_lazy("Leave empty if the agency stated it in writing."),
        }


def _active_holds() -> QuerySet[Any]:
    return list_active_holds(now=clock.now()).order_by().values("pk")


LegalHoldStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "active": (gettext_lazy("Active"), lambda rows: rows.filter(pk__in=_active_holds())),
        "over": (gettext_lazy("Ended"), lambda rows: rows.exclude(pk__in=_active_holds())),
    },
)


def _is_active(hold: LegalHold) -> bool:
    return hold.released_at is None and (hold.until is None or hold.until > clock.now())


@admin.register(LegalHold)
class LegalHoldAdmin(SubjectRowsAdmin, ErrorMessageAdmin):
    """Holds are placed here and released by an action. They are never changed or deleted."""

    form = LegalHoldForm
    raw_id_fields = ("subject",)
    uuid_lookups = ("subject__uuid", "pk")
    search_help_text = gettext_lazy(
        "The beginning of a name, user name or reason, or a complete account, subject or hold ID."
    )
    list_display = ("person", "reason", "state", "placed", "placed_by_person")
    list_display_links = ("reason",)
    list_filter = (LegalHoldStateFilter,)
    sortable_by = ("placed",)
    ordering = ("-placed_at",)
    actions = ("release",)
    operation_permissions = (("release", "change_legalhold"),)

    placed = create_time_column("placed_at", gettext_lazy("Placed (UTC)"))
    ends = create_time_column("until", gettext_lazy("Ends (UTC)"))
    released = create_time_column("released_at", gettext_lazy("Released (UTC)"))
    suspended = create_time_column(
        "suspended_until", gettext_lazy("Accounting suspended until (UTC)")
    )
    stated_orally = create_time_column("oral_statement_at", gettext_lazy("Oral statement of (UTC)"))

    def get_fieldsets(self, request: HttpRequest, obj: LegalHold | None = None) -> Any:
        suspension = gettext_lazy("Suspension of the accounting of disclosures")
        if obj is None:
            form_fields = LegalHoldForm.Meta.fields
            return [(None, {"fields": form_fields[:3]}), (suspension, {"fields": form_fields[3:]})]
        suspended = ("suspended", "suspended_purpose_labels", "agency", "stated_orally")
        placed = ("placed", "placed_by_person", "ends", "released", "released_by_person")
        return [
            (None, {"fields": ("person", "reason", "state", *placed)}),
            *([(suspension, {"fields": suspended})] if obj.suspended_until else []),
            build_technical_fieldset("id", "subject_uuid"),
        ]

    def list_actors(self, row: LegalHold) -> Iterable[str]:
        return *super().list_actors(row), row.placed_by, row.released_by

    @admin.display(description=gettext_lazy("Placed by"))
    def placed_by_person(self, row: LegalHold) -> str:
        return self.show_actor(row, row.placed_by)

    @admin.display(description=gettext_lazy("Released by"))
    def released_by_person(self, row: LegalHold) -> str:
        return self.show_actor(row, row.released_by)

    @admin.display(description=gettext_lazy("Purposes of these disclosures"))
    def suspended_purpose_labels(self, row: LegalHold) -> str:
        labels = map(get_purpose_label, row.suspended_purposes if row.suspended_until else ())
        return ", ".join(labels) or str(self.get_empty_value_display())

    @admin.display(description=gettext_lazy("State"))
    def state(self, hold: LegalHold) -> str:
        if hold.released_at is not None:
            return _("Released")
        if not _is_active(hold):
            return _("Ended")

        if hold.until is None:
            return _("Active until it is released")
        return _("Active for a time")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Include the reason, which is often a case number. No index has it, but there are few
        holds.
        """
        rows, has_duplicates = super().get_search_results(request, queryset, search_term)
        return rows | queryset.filter(reason__istartswith=search_term.strip()), has_duplicates

    def describe_row(self, row: LegalHold) -> str:
        """Return person and reason."""
        return f"{self.describe_person(row)}: {row.reason}"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("phi_oidc_legal_holds.add_legalhold")

    def has_release_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("phi_oidc_legal_holds.change_legalhold")

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        field = super().formfield_for_foreignkey(
            db_field, request, **{**kwargs, "form_class": SubjectField}
        )
        if field is not None:
            # The popup's script needs the first class; the second one makes the field wide enough
            # for a UUID.
            field.widget.attrs["class"] = "vForeignKeyRawIdAdminField vUUIDField"
        return field

    def save_model(self, request: HttpRequest, obj: LegalHold, form: Any, change: bool) -> None:
        """Place the hold in the form's transaction. Raises: PhiOidcError; DoesNotExist if the
        subject was deleted.
        """
        origin = Actor.from_request(request).origin
        suspension = form.build_suspension()
        hold = place_hold(
            obj.subject.uuid,
            reason=obj.reason,
            until=obj.until,
            suspension=suspension,
            origin=origin,
            now=clock.now(),
        )
        obj.pk = hold.pk
        obj.refresh_from_db()

    @confirmed_action(
        description=gettext_lazy("Release"),
        permissions=["release"],
        can_apply=_is_active,
        ask=lambda count: (
            ngettext("Release %(count)d hold?", "Release %(count)d holds?", count)
            % {"count": count}
        ),
        consequence=gettext_lazy(
            "The next scrub erases claims past their retention that no other hold keeps."
        ),
        describe_skipped=lambda count: (
            ngettext(
                "%(count)d hold had already ended and was skipped.",
                "%(count)d holds had already ended and were skipped.",
                count,
            )
            % {"count": count}
        ),
    )
    def release(self, request: HttpRequest, rows: Sequence[LegalHold]) -> None:
        """Release the selected holds, each in its own transaction."""
        origin = Actor.from_request(request).origin
        released = 0
        try:
            for hold in sorted(rows, key=lambda row: row.placed_at):
                released += release_hold(hold.pk, origin=origin, now=clock.now())
        except PhiOidcError as refusal:
            self.message_user(request, get_error_message(refusal), messages.ERROR)
        message = ngettext(
            "%(count)d hold was released.", "%(count)d holds were released.", released
        )
        self.message_user(request, message % {"count": released}, messages.SUCCESS)
