"""Emergency accesses in the admin: the list, their events, and the review by another person."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ..._internal import clock
from ..._internal.admin_filters import create_state_filter
from ...audit.admin import record_request_event, render_trail_unavailable
from ...audit.admin_base import ReadOnlyAdmin
from ...audit.events import Action, Origin
from ...audit.request_context import Actor
from ...audit.search import RowUnreadable
from ...errors import AuditUnavailable, EmergencyRefused, KeyMissing, Undecryptable
from ..no_store import mark_response_private
from .forms import EmergencyReviewForm
from .lifecycle import (
    ALREADY_REVIEWED,
    OWN_EMERGENCY,
    STILL_OPEN,
    close_emergencies,
    list_emergency_events,
    review_emergency,
)
from .models import CloseReason, EmergencyAccess, ReviewVerdict
from .queries import REVIEW_PERMISSION

_REFUSAL_MESSAGES = {
    OWN_EMERGENCY: gettext_lazy("This is your own emergency access. Another person must review it."),
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
            lambda rows: rows.filter(pk__in=_pks(EmergencyAccess.objects.awaiting_review(now=clock.now()))),
        ),
        "open": (
            gettext_lazy("open"),
            lambda rows: rows.filter(pk__in=_pks(EmergencyAccess.objects.currently_open(now=clock.now()))),
        ),
        "reviewed": (gettext_lazy("reviewed"), lambda rows: rows.exclude(reviewed_at=None)),
    },
)


@admin.register(EmergencyAccess)
class EmergencyAccessAdmin(ReadOnlyAdmin):
    list_display = (
        "opened_at",
        "state",
        "user",
        "is_local",
        "resource",
        "purpose",
        "expires_at",
        "alerted_at",
        "verdict",
    )
    list_filter = (EmergencyStateFilter, "verdict")
    list_select_related = ("user",)
    ordering = ("-opened_at",)
    actions = ("close_now",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmergencyAccess]:
        return super().get_queryset(request).defer("reason", "note")

    def has_review_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may review and close emergencies of other persons."""
        return request.user.has_perm(REVIEW_PERMISSION)

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: EmergencyAccess) -> str:
        if not row.has_ended(now=clock.now()):
            return _("open")
        return _("awaiting review") if row.reviewed_at is None else _("reviewed")

    @admin.action(description=gettext_lazy("Close now"), permissions=["review"])
    def close_now(self, request: HttpRequest, queryset: QuerySet[EmergencyAccess]) -> None:
        """Close the selected emergencies that are open."""
        ids = list(queryset.order_by().values_list("pk", flat=True))
        message = close_selected_emergencies(ids, origin=Actor.from_request(request).origin, now=clock.now())
        self.message_user(request, message, messages.SUCCESS)

    @method_decorator([sensitive_post_parameters("note"), sensitive_variables()])
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show an emergency with its reason and events, after an event of its own; or process the review."""
        has_permission = self.has_review_permission if request.method == "POST" else self.has_view_permission
        if not has_permission(request):
            raise PermissionDenied
        mark_response_private(request)
        try:
            row = EmergencyAccess.objects.select_related("user").get(pk=UUID(object_id))
        except (ValueError, EmergencyAccess.DoesNotExist):
            raise Http404 from None
        form = EmergencyReviewForm(request.POST if request.method == "POST" else None)
        try:
            if request.method == "POST" and form.is_valid():
                return self._process_review(request, row, form)
            return self._render_emergency(request, row, form)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)

    def _process_review(self, request: HttpRequest, row: EmergencyAccess, form: EmergencyReviewForm) -> HttpResponse:
        """Raises: AuditUnavailable; PermissionDenied."""
        actor, verdict = Actor.from_request(request), ReviewVerdict(form.cleaned_data["verdict"])
        try:
            review_emergency(row.pk, actor=actor, verdict=verdict, note=form.cleaned_data["note"], now=clock.now())
        except EmergencyRefused as refusal:
            if refusal.reason not in _REFUSAL_MESSAGES:
                raise PermissionDenied from None
            self.message_user(request, str(_REFUSAL_MESSAGES[refusal.reason]), messages.ERROR)
            return HttpResponseRedirect(request.path)
        self.message_user(request, _("The review was saved."), messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:django_phi_oidc_emergencyaccess_changelist"))

    def _render_emergency(self, request: HttpRequest, row: EmergencyAccess, form: EmergencyReviewForm) -> HttpResponse:
        """Raises: AuditUnavailable."""
        detail = {"page": "emergency", "filters": ["actor"]}
        record_request_event(request, Action.AUDIT_VIEWED, resource=f"EmergencyAccess/{row.pk}", detail=detail)
        events, is_unreadable = [], False
        try:
            events = list(list_emergency_events(row))
        except RowUnreadable:
            is_unreadable = True
        is_own = str(request.user.pk) == row.actor
        is_due = row.has_ended(now=clock.now()) and row.reviewed_at is None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Emergency access"),
            "row": row,
            "state": self.state(row),
            "reason": _decrypt_field(row, "reason"),
            "note": _decrypt_field(row, "note"),
            "acts": events,
            "is_unreadable": is_unreadable,
            "is_own": is_own,
            "form": form,
            "may_review": is_due and not is_own and self.has_review_permission(request),
        }
        template, status = "admin/django_phi_oidc/emergencyaccess/emergency.html", 400 if form.errors else 200
        return TemplateResponse(request, template, context, status=status)


def close_selected_emergencies(emergency_ids: Sequence[UUID], *, origin: Origin, now: datetime) -> str:
    """Close these emergency accesses, and return a message."""
    count = len(close_emergencies(emergency_ids, CloseReason.ADMINISTRATOR, origin=origin, now=now))
    return ngettext("%(count)d was closed.", "%(count)d were closed.", count) % {"count": count}


def _decrypt_field(emergency: EmergencyAccess, field_name: str) -> str:
    field: Any = EmergencyAccess._meta.get_field(field_name)
    try:
        return str(field.decrypt(emergency) or "")
    except (KeyMissing, Undecryptable):
        return _("It cannot be decrypted.")
