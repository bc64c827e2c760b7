"""Emergency accesses in the admin: what was opened, what was done under it, and the review of another person."""

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

from .. import clock
from ..audit.admin import trail_unavailable
from ..audit.browsing import RowUnreadable
from ..audit.events import Action
from ..audit.recording import record
from ..audit.request import Actor
from ..errors import AuditUnavailable, EmergencyRefused, KeyMissing, Undecryptable
from ..listing import ReadOnlyAdmin
from .closing import close
from .emergency import REVIEW
from .forms import ReviewForm
from .models import CloseReason, EmergencyAccess, Verdict
from .responding import keep_private
from .reviewing import OWN, REVIEWED, STILL_OPEN, acts_under, review

_REFUSALS = {
    OWN: gettext_lazy("It is your own: another person reviews it."),
    STILL_OPEN: gettext_lazy("It is still open: close it first, or wait until it is over."),
    REVIEWED: gettext_lazy("Somebody has reviewed it already."),
}


class StateFilter(admin.SimpleListFilter):
    """By what is to be done about it."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("waiting", _("waits for its review")), ("open", _("open")), ("reviewed", _("reviewed"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now, every = clock.now(), EmergencyAccess.objects
        match self.value():
            case "waiting":
                return queryset.filter(pk__in=every.waiting(now=now).order_by().values("pk"))
            case "open":
                return queryset.filter(pk__in=every.lasting(now=now).order_by().values("pk"))
            case "reviewed":
                return queryset.exclude(reviewed_at=None)
        return queryset


@admin.register(EmergencyAccess)
class EmergencyAccessAdmin(ReadOnlyAdmin):
    """A list without reasons; the page of one opens the reason, after an event, and takes the review."""

    list_display = ("opened_at", "state", "user", "resource", "purpose", "expires_at", "alerted_at", "verdict")
    list_filter = (StateFilter, "verdict")
    list_select_related = ("user",)
    ordering = ("-opened_at",)
    actions = ("close_now",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmergencyAccess]:
        return super().get_queryset(request).defer("reason", "note")

    def has_review_permission(self, request: HttpRequest) -> bool:
        """Say whether this person may review emergencies of others, and close them."""
        return request.user.has_perm(REVIEW)

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: EmergencyAccess) -> str:
        """Return what is to be done about it."""
        if not row.is_over(now=clock.now()):
            return _("open")
        return _("waits for its review") if row.reviewed_at is None else _("reviewed")

    @admin.action(description=gettext_lazy("Close now"), permissions=["review"])
    def close_now(self, request: HttpRequest, queryset: QuerySet[EmergencyAccess]) -> None:
        """Close the chosen ones that are open: nothing more is permitted by them from then on."""
        ids = list(queryset.order_by().values_list("pk", flat=True))
        origin = Actor.from_request(request).origin
        closed = close(ids, CloseReason.ADMINISTRATOR, origin=origin, now=clock.now())
        told = ngettext("%(count)d was closed.", "%(count)d were closed.", len(closed))
        self.message_user(request, told % {"count": len(closed)}, messages.SUCCESS)

    @method_decorator([sensitive_post_parameters("note"), sensitive_variables()])
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one, with its reason and what was done under it, after the event of that; take the review."""
        may = self.has_review_permission if request.method == "POST" else self.has_view_permission
        if not may(request):
            raise PermissionDenied
        keep_private(request)
        try:
            row = EmergencyAccess.objects.select_related("user").get(pk=UUID(object_id))
        except (ValueError, EmergencyAccess.DoesNotExist):
            raise Http404 from None
        form = ReviewForm(request.POST if request.method == "POST" else None)
        try:
            if request.method == "POST" and form.is_valid():
                return self._review(request, row, form)
            return self._show(request, row, form)
        except AuditUnavailable:
            return trail_unavailable(request, self.admin_site)

    def _review(self, request: HttpRequest, row: EmergencyAccess, form: ReviewForm) -> HttpResponse:
        """Raises: AuditUnavailable; PermissionDenied."""
        actor, verdict = Actor.from_request(request), Verdict(form.cleaned_data["verdict"])
        try:
            review(row.pk, actor=actor, verdict=verdict, note=form.cleaned_data["note"], now=clock.now())
        except EmergencyRefused as refusal:
            if refusal.reason not in _REFUSALS:
                raise PermissionDenied from None
            self.message_user(request, str(_REFUSALS[refusal.reason]), messages.ERROR)
            return HttpResponseRedirect(request.path)
        self.message_user(request, _("The review was signed."), messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:django_phi_oidc_emergencyaccess_changelist"))

    def _show(self, request: HttpRequest, row: EmergencyAccess, form: ReviewForm) -> HttpResponse:
        """Raises: AuditUnavailable."""
        actor, now = Actor.from_request(request), clock.now()
        record(
            Action.AUDIT_VIEWED,
            origin=actor.origin,
            now=now,
            resource=f"EmergencyAccess/{row.pk}",
            detail={"page": "emergency", "filters": ["actor"]},
        )
        acts, is_unreadable = [], False
        try:
            acts = list(acts_under(row))
        except RowUnreadable:
            is_unreadable = True
        is_own, is_over = str(actor.user.pk) == row.actor, row.is_over(now=now)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Emergency access"),
            "row": row,
            "state": self.state(row),
            "reason": _opened(row, "reason"),
            "note": _opened(row, "note"),
            "acts": acts,
            "is_unreadable": is_unreadable,
            "is_own": is_own,
            "form": form,
            "may_review": self.has_review_permission(request) and is_over and not is_own and row.reviewed_at is None,
        }
        status = 400 if form.errors else 200
        return TemplateResponse(request, "admin/django_phi_oidc/emergencyaccess/emergency.html", context, status=status)


def _opened(row: EmergencyAccess, name: str) -> str:
    field: Any = EmergencyAccess._meta.get_field(name)
    try:
        return str(field.open(row) or "")
    except (KeyMissing, Undecryptable):
        return _("It can’t be opened.")
