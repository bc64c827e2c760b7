"""Stored claims and their retention report in the admin.

No value is shown, decrypted, or read from the database.
"""

from collections.abc import Iterable, Sequence
from datetime import MAXYEAR, datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ... import conf
from ..._internal import clock
from ..._internal.admin_columns import create_time_column, format_utc
from ...audit.admin_actions import confirmed_action
from ...audit.descriptions import get_purpose_label
from ...audit.outbox import batch_delivery
from ...audit.request_context import Actor
from ...claims.categories import list_hidden_names
from ...claims.models import NO_SESSION, StoredClaim, get_claim_label, get_session_claim_condition
from ...claims.retention import scrub_user
from ...claims.retention_report import create_retention_report, get_overdue_condition
from ...crypto import claim_keys
from ...errors import HeldForLegalReasons, KeyMissing
from ...extensions import retention_guards
from ...fields import MASK
from ..common.admin_fields import build_technical_fieldset, create_code_column, keep_dates_together
from ..common.admin_filters import create_choice_filter, create_state_filter
from ..common.people_admin import SubjectRowsAdmin


def _list_names() -> list[tuple[str, str]]:
    names = []
    for name, claim in sorted(conf.claims().items()):
        if claim.retention is not None:
            names.append((name, get_claim_label(name)))
    return names


def _list_purposes() -> list[tuple[str, str]]:
    purposes = set()
    for claim in conf.claims().values():
        if claim.retention is not None:
            purposes.add(claim.purpose)
    result = []
    for purpose in sorted(purposes):
        result.append((purpose, get_purpose_label(purpose)))
    return result


def _filter_held(rows: QuerySet[Any]) -> QuerySet[Any]:
    # Through the few held subjects, because no index covers held claims.
    now = clock.now()
    is_of_held_subject = Q(pk__in=[])
    for guard in retention_guards:
        is_of_held_subject |= Q(subject__in=guard.list_held_subjects(now=now))
    return rows.filter(is_of_held_subject, held_until__gt=now)


ClaimNameFilter = create_choice_filter(
    gettext_lazy("name"),
    "name",
    _list_names,
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
        claims = []
        for row in report.claims:
            claims.append((row, get_claim_label(row.name), get_purpose_label(row.purpose)))
        keys = None
        is_unavailable = False
        source = claim_keys.find_enabled_source()
        try:
            if source is not None:
                keys = source.get_summary().get_row()
        except KeyMissing:
            is_unavailable = True
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Retention report"),
            "report": report,
            "claims": claims,
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
