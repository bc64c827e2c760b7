"""Emergency accesses in the admin: the queue of those to review, what was looked at, and the
review.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Case, F, Q, QuerySet, When
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ..._internal import clock
from ..._internal.admin_columns import create_time_column
from ...access.no_store import mark_response_private
from ...audit.admin_base import ReadOnlyAdmin, record_request_event, render_trail_unavailable
from ...audit.descriptions import (
    get_action_label,
    get_outcome_label,
    get_purpose_label,
    get_reason_label,
)
from ...audit.event_people import People, Person
from ...audit.events import Action, parse_detail
from ...audit.models import AuditEvent
from ...audit.request_context import Actor
from ...audit.search import RowUnreadable
from ...errors import AuditUnavailable, KeyMissing, Undecryptable
from ...sessions.refusal_pages import find_permission_name
from ...subjects.people import find_people
from ..common.admin_fields import keep_dates_together
from ..common.admin_filters import create_state_filter
from ..common.people_admin import can_view_person_pages
from . import conf
from .errors import EmergencyRefused
from .forms import EmergencyReviewForm
from .lifecycle import (
    ALREADY_REVIEWED,
    LATE_EVENT_MARGIN,
    OWN_EMERGENCY,
    STILL_OPEN,
    close_selected_emergencies,
    list_emergency_events,
    review_emergency,
)
from .models import ALL_RESOURCES, EmergencyAccess, ReviewVerdict
from .queries import REVIEW_PERMISSION

MAX_LISTED_ACCESSES = 200
"""Rows of the page: the first ones. The audit log has the others."""
OTHER_EMERGENCIES_PERIOD = timedelta(days=30)
_REFUSAL_MESSAGES = {
    OWN_EMERGENCY: gettext_lazy(
        "This is your own emergency access. Another person must review it."
    ),
    STILL_OPEN: gettext_lazy("It is still open. Close it first, or wait until it ends."),
    ALREADY_REVIEWED: gettext_lazy("It has already been reviewed."),
}


def _pks(emergencies: QuerySet[EmergencyAccess]) -> QuerySet[Any]:
    return emergencies.order_by().values("pk")


EmergencyStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "waiting": (
            gettext_lazy("awaiting review"),
            lambda rows: rows.filter(
                pk__in=_pks(EmergencyAccess.objects.awaiting_review(now=clock.now()))
            ),
        ),
        "overdue": (
            gettext_lazy("review overdue"),
            lambda rows: rows.filter(pk__in=_pks(_list_overdue(now=clock.now()))),
        ),
        "open": (
            gettext_lazy("open"),
            lambda rows: rows.filter(
                pk__in=_pks(EmergencyAccess.objects.currently_open(now=clock.now()))
            ),
        ),
        "reviewed": (gettext_lazy("reviewed"), lambda rows: rows.exclude(reviewed_at=None)),
    },
)


class EmergencyChangeList(ChangeList):
    """Finds the persons of a page by one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = list(self.result_list)
        people = find_people(actors=[row.actor for row in rows])
        links_people = can_view_person_pages(request.user)
        for row in rows:
            row.person_label = describe_person(people, row, links_people=links_people)
        self.result_list = rows


@admin.register(EmergencyAccess)
class EmergencyAccessAdmin(ReadOnlyAdmin):
    list_display = ("opened", "person", "record", "purpose_label", "review_state")
    list_filter = (EmergencyStateFilter, "verdict")
    actions = ("close_now",)
    operation_permissions = (("change", "review_emergencyaccess"),)

    opened = create_time_column("opened_at", gettext_lazy("Opened (UTC)"))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EmergencyChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmergencyAccess]:
        waits = Q(reviewed_at=None) & (Q(closed_at__isnull=False) | Q(expires_at__lte=clock.now()))
        rows: QuerySet[EmergencyAccess] = super().get_queryset(request).defer("reason", "note")
        return rows.annotate(waiting_since=Case(When(waits, then=F("opened_at"))))

    def get_ordering(self, request: HttpRequest) -> Any:
        """Put those that wait for a review first, the oldest first, then the others, the newest
        first.
        """
        return F("waiting_since").asc(nulls_last=True), "-opened_at"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        title = {"title": _("Emergency accesses: review queue")}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def has_review_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may review and close emergencies of other persons."""
        return request.user.has_perm(REVIEW_PERMISSION)

    @admin.display(description=gettext_lazy("person"))
    def person(self, row: Any) -> str:
        return str(row.person_label)

    @admin.display(description=gettext_lazy("record"))
    def record(self, row: EmergencyAccess) -> str:
        return get_record_label(row)

    @admin.display(description=gettext_lazy("purpose"), ordering="purpose")
    def purpose_label(self, row: EmergencyAccess) -> str:
        return get_purpose_label(row.purpose)

    @admin.display(description=gettext_lazy("review"))
    def review_state(self, row: EmergencyAccess) -> str:
        return keep_dates_together(describe_review(row, now=clock.now()))

    @admin.action(description=gettext_lazy("Close now"), permissions=["review"])
    def close_now(self, request: HttpRequest, queryset: QuerySet[EmergencyAccess]) -> None:
        """Close the selected emergencies that are open."""
        ids = list(queryset.order_by().values_list("pk", flat=True))
        message = close_selected_emergencies(
            ids, origin=Actor.from_request(request).origin, now=clock.now()
        )
        self.message_user(request, message, messages.SUCCESS)

    @method_decorator([sensitive_post_parameters("note"), sensitive_variables()])
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show an emergency with its reason and events, after an event of its own; or process the
        review.
        """
        if request.method == "POST":
            has_permission = self.has_review_permission
        else:
            has_permission = self.has_view_permission

        if not has_permission(request):
            raise PermissionDenied
        mark_response_private(request)
        try:
            row = EmergencyAccess.objects.get(pk=UUID(object_id))
        except (ValueError, EmergencyAccess.DoesNotExist):
            raise Http404 from None
        form = EmergencyReviewForm(request.POST if request.method == "POST" else None)
        try:
            if request.method == "POST" and form.is_valid():
                return self._process_review(request, row, form)
            return self._render_emergency(request, row, form)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)

    def _process_review(
        self, request: HttpRequest, row: EmergencyAccess, form: EmergencyReviewForm
    ) -> HttpResponse:
        """Redirect to the next one that waits, or to the list. Raises: AuditUnavailable;
        PermissionDenied.
        """
        actor = Actor.from_request(request)
        verdict = ReviewVerdict(form.cleaned_data["verdict"])
        try:
            review_emergency(
                row.pk,
                actor=actor,
                verdict=verdict,
                note=form.cleaned_data["note"],
                now=clock.now(),
            )
        except EmergencyRefused as refusal:
            if refusal.reason not in _REFUSAL_MESSAGES:
                raise PermissionDenied from None
            self.message_user(request, str(_REFUSAL_MESSAGES[refusal.reason]), messages.ERROR)
            return HttpResponseRedirect(request.path)
        waiting = list_reviewable_pks(request.user, excluded=row, now=clock.now())
        message = _("The review was saved. No other emergency access waits for your review.")
        if waiting:
            text = ngettext(
                "The review was saved. Next: %(count)d more waits for review.",
                "The review was saved. Next: %(count)d more wait for review.",
                len(waiting),
            )
            message = text % {"count": len(waiting)}
        self.message_user(request, message, messages.SUCCESS)
        return HttpResponseRedirect(_build_page_url(waiting[0]) if waiting else _build_list_url())

    def _render_emergency(
        self, request: HttpRequest, row: EmergencyAccess, form: EmergencyReviewForm
    ) -> HttpResponse:
        """Raises: AuditUnavailable."""
        detail = {"page": "emergency", "filters": ["actor"]}
        record_request_event(
            request, Action.AUDIT_VIEWED, resource=f"EmergencyAccess/{row.pk}", detail=detail
        )
        now = clock.now()
        user = request.user
        is_own = str(user.pk) == row.actor
        may_review = self.has_review_permission(request)
        people = find_people(actors=[row.actor, row.reviewed_by])
        links_people = can_view_person_pages(user)
        context = {
            **self.admin_site.each_context(request),
            **build_activity_context(
                row, links_events=user.has_perm("phi_oidc_audit.view_auditevent")
            ),
            "opts": self.opts,
            "title": _("Emergency access"),
            "row": row,
            "person": describe_person(people, row, links_people=links_people),
            "reviewer": people.find_actor(row.reviewed_by) or row.reviewed_by,
            "record": get_record_label(row),
            "permissions": [get_emergency_permission_label(name) for name in row.permissions],
            "purpose": get_purpose_label(row.purpose),
            "state": describe_review(row, now=now),
            "has_ended": row.has_ended(now=now),
            "reason": _decrypt_field(row, "reason"),
            "note": _decrypt_field(row, "note"),
            "other_rows": _list_other_rows(row, now=now),
            "other_days": OTHER_EMERGENCIES_PERIOD.days,
            "is_own": is_own,
            "form": form,
            "may_review": row.has_ended(now=now)
            and row.reviewed_at is None
            and not is_own
            and may_review,
            "waiting": list_reviewable_pks(user, excluded=row, now=now) if may_review else [],
        }
        template = "admin/phi_oidc_emergency/emergencyaccess/emergency.html"
        status = 400 if form.errors else 200
        return TemplateResponse(request, template, context, status=status)


def _list_other_rows(row: EmergencyAccess, *, now: datetime) -> list[tuple[EmergencyAccess, str]]:
    """Return the other emergencies of the person, each with the state of its review."""
    rows = []
    for other in list_other_emergencies(row):
        rows.append((other, describe_review(other, now=now)))
    return rows


def build_activity_context(row: EmergencyAccess, *, links_events: bool) -> dict[str, Any]:
    """Return what the person looked at, and the other events of the emergency. Raises:
    AuditUnavailable.
    """
    accesses: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    is_unreadable = False
    try:
        for event in list_emergency_events(row):
            if event.action == Action.ACCESS_GRANTED:
                rows = accesses
            else:
                rows = others
            rows.append(_build_event_row(event, links_events=links_events))
    except RowUnreadable:
        is_unreadable = True
    period = {
        "actor": row.actor,
        "since": row.opened_at.isoformat(),
        "until": (row.get_end() + LATE_EVENT_MARGIN).isoformat(),
    }
    log_url = f"{reverse('admin:phi_oidc_audit_auditevent_changelist')}?{urlencode(period)}"
    return {
        "accesses": accesses[:MAX_LISTED_ACCESSES],
        "has_pages": any(item["page"] for item in accesses),
        "unlisted": len(accesses[MAX_LISTED_ACCESSES:]),
        "events": others,
        "is_unreadable": is_unreadable,
        "log_url": log_url if links_events else "",
    }


def _build_event_row(event: AuditEvent, *, links_events: bool) -> dict[str, Any]:
    if links_events:
        url = reverse("admin:phi_oidc_audit_auditevent_change", args=[event.pk])
    else:
        url = ""
    return {
        "occurred_at": event.occurred_at,
        "url": url,
        "action": get_action_label(event.action),
        "outcome": get_outcome_label(event.outcome),
        "resource": event.resource,
        "page": parse_detail(event.detail).get("page", ""),
        "purpose": get_purpose_label(event.purpose),
        "reason": get_reason_label(event.reason),
    }


def describe_person(people: People, row: EmergencyAccess, *, links_people: bool) -> str:
    """Return the name of the person who opened the emergency, as a link if the viewer may open the
    person's page.
    """
    person = people.find_actor(row.actor) or Person(
        label=_("deleted account %(key)s") % {"key": row.actor}, url=""
    )
    label: str
    if links_people and person.url:
        label = format_html('<a href="{}">{}</a>', person.url, person)
    else:
        label = person.label

    if row.is_local:
        return format_html(_("{person}, local account"), person=label)
    return format_html("{}", label)


def get_record_label(row: EmergencyAccess) -> str:
    """Return what was opened: a resource, or all of them."""
    if row.resource == ALL_RESOURCES:
        return _("All records")
    return row.resource


def get_emergency_permission_label(permission: str) -> str:
    """Return the description of the settings, or the name of the permission if they no longer offer
    it.
    """
    declaration = conf.emergency()
    if declaration:
        declared = declaration.permissions.get(permission, "")
    else:
        declared = ""

    return str(declared or find_permission_name(permission) or permission)


def describe_review(row: EmergencyAccess, *, now: datetime) -> str:
    """Return in words whether it is open, waits for its review and until when, or how it was
    reviewed.
    """
    if row.reviewed_at is not None:
        return str(row.get_verdict_display())
    if not row.has_ended(now=now):
        return _("open until %(time)s") % {"time": _format_time(row.expires_at)}
    age = timesince(row.get_end(), now, depth=1)
    deadline = _find_deadline(row)
    if deadline is None:
        return _("waiting for %(age)s") % {"age": age}
    texts = {"age": age, "time": _format_time(deadline)}
    if deadline <= now:
        return _("overdue since %(time)s, waiting for %(age)s") % texts
    return _("waiting for %(age)s, due %(time)s") % texts


def _find_deadline(row: EmergencyAccess) -> datetime | None:
    declaration = conf.emergency()
    if declaration:
        return row.get_end() + declaration.review_within
    return None


def _list_overdue(*, now: datetime) -> QuerySet[EmergencyAccess]:
    declaration = conf.emergency()
    rows = EmergencyAccess.objects.awaiting_review(now=now)

    if declaration:
        return rows.ended_before(now - declaration.review_within)
    return rows.none()


def _format_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def list_reviewable_pks(user: Any, *, excluded: EmergencyAccess, now: datetime) -> list[UUID]:
    """Return the emergencies that wait for a review by user, the oldest first."""
    rows = (
        EmergencyAccess.objects.awaiting_review(now=now)
        .exclude(actor=str(user.pk))
        .exclude(pk=excluded.pk)
    )
    return list(rows.order_by("opened_at", "pk").values_list("pk", flat=True))


def list_other_emergencies(row: EmergencyAccess) -> list[EmergencyAccess]:
    """Return the other emergencies of the same person, from OTHER_EMERGENCIES_PERIOD before this
    one, newest first.
    """
    rows = EmergencyAccess.objects.filter(
        opened_at__gt=row.opened_at - OTHER_EMERGENCIES_PERIOD, actor=row.actor
    )
    return list(
        rows.exclude(pk=row.pk).defer("reason", "note").order_by("-opened_at")[:MAX_LISTED_ACCESSES]
    )


def _build_page_url(pk: UUID) -> str:
    return reverse("admin:phi_oidc_emergency_emergencyaccess_change", args=[pk])


def _build_list_url() -> str:
    return reverse("admin:phi_oidc_emergency_emergencyaccess_changelist")


def _decrypt_field(emergency: EmergencyAccess, field_name: str) -> str:
    field: Any = EmergencyAccess._meta.get_field(field_name)
    try:
        return str(field.decrypt(emergency) or "")
    except (KeyMissing, Undecryptable):
        return _("It cannot be decrypted.")
