"""Legal holds in the admin: they are placed and released here."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db.models import ForeignKey, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..._internal import clock
from ..._internal.admin_columns import create_time_column
from ...audit.admin_actions import confirmed_action
from ...audit.admin_base import ErrorMessageAdmin, get_error_message
from ...audit.descriptions import get_purpose_label
from ...audit.request_context import Actor
from ...errors import PhiOidcError
from ...subjects.models import PairwiseSubject
from ..common.admin_fields import build_technical_fieldset
from ..common.admin_filters import create_state_filter
from ..common.people_admin import SubjectRowsAdmin
from ..common.visible_text import validate_visible_text
from .accounting_suspensions import (
    SUSPENDABLE_PURPOSES,
    AccountingSuspension,
    find_suspension_fault,
)
from .forms import FutureUntilMixin
from .legal_holds import list_active_holds, place_hold, release_hold
from .models import LegalHold

if TYPE_CHECKING:
    HoldModelForm = forms.ModelForm[LegalHold]
    SubjectChoiceField = forms.ModelChoiceField[PairwiseSubject]
else:
    HoldModelForm = forms.ModelForm
    SubjectChoiceField = forms.ModelChoiceField


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
