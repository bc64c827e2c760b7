"""The trail's own pages, to read and nothing else. Each look is an event, committed before the page is given."""

import json
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..errors import AuditUnavailable
from . import browsing
from .asking import CheckpointCursor, Cursor, EventCursor, FiltersForm
from .browsing import Filters, RowUnreadable
from .events import OUTCOMES, Action, Outcome
from .models import AuditCheckpoint, AuditEvent
from .proving import prove
from .recording import record
from .request import Actor
from .writing import reaching_the_trail

if TYPE_CHECKING:
    EventAdmin = admin.ModelAdmin[AuditEvent]
    CheckpointAdmin = admin.ModelAdmin[AuditCheckpoint]
else:
    EventAdmin = CheckpointAdmin = admin.ModelAdmin

View = Callable[..., HttpResponseBase]
_APP = "django_phi_oidc"
UNREADABLE = _("What is stored here was altered and is no event any more: “phi_oidc audit verify” tells which it is.")


def guarding(view: View, *, methods: Collection[str], may: Callable[[Any, HttpRequest], bool]) -> View:
    """Let those in who may. A refusal is an event, too; without the trail nobody sees or does anything."""

    @wraps(view)
    def guarded(self: Any, request: HttpRequest, **asked: Any) -> HttpResponseBase:
        try:
            if not may(self, request):
                self.refuse(request, *asked.values())
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            return view(self, request, **asked)
        except AuditUnavailable:
            return trail_unavailable(request, self.admin_site)

    return guarded


def looking(view: View) -> View:
    """Let those look who may."""
    return guarding(view, methods=("GET", "HEAD"), may=lambda pages, request: pages.has_view_permission(request))


class TrailPages:
    """What all pages of the trail have of Django's admin: its frame, its sign-in, and no way to change anything."""

    opts: Any
    model: Any
    admin_site: admin.AdminSite

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(f"{_APP}.view_{self.opts.model_name}"))

    def refuse(self, request: HttpRequest, *asked: Any) -> NoReturn:
        """Refuse what is asked for, after the event of it. Raises: PermissionDenied, AuditUnavailable."""
        # A key that is nobody's is not written.
        with reaching_the_trail():
            rows = [key for key in asked if self.model._base_manager.filter(pk=key).exists()]
        tell_refusal(request, self.opts, *rows)
        raise PermissionDenied

    def routes(self, views: Mapping[str, tuple[str, View]]) -> list[Any]:
        """Return the URLs of these pages: there are no others, so nothing of the admin's own looks without an event."""
        prefix = f"{_APP}_{self.opts.model_name}"
        return [
            path(route, self.admin_site.admin_view(view), name=f"{prefix}_{name}")
            for name, (route, view) in views.items()
        ]

    def show(self, request: HttpRequest, page: str, **context: Any) -> HttpResponseBase:
        """Return a page of the admin's. What its template shows is loaded already: it asks no database."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"admin/{_APP}/{self.opts.model_name}/{page}.html", frame)


@admin.register(AuditEvent)
class AuditEventAdmin(TrailPages, EventAdmin):
    """The events: a list by filters, and one by one, each with its proof."""

    def get_urls(self) -> list[Any]:
        """Return the list's, an event's and a proof's."""
        return self.routes(
            {
                "changelist": ("", self.list_view),
                "change": ("<uuid:event_id>/change/", self.event_view),
                "proof": ("<uuid:event_id>/proof/", self.proof_view),
            }
        )

    @looking
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the events that the filters let through, or say what is wrong with the filters, and show none."""
        form, cursor = FiltersForm(request.GET), EventCursor(request.GET)
        is_valid, faults = all([form.is_valid(), cursor.is_valid()]), cursor.faults()
        filters, kept = (form.filters(), form.as_parameters()) if form.is_valid() else (Filters(), {})
        page: browsing.Page[AuditEvent, uuid.UUID] = browsing.Page()
        try:
            page = browsing.page(filters, **cursor.cleaned_data) if is_valid else page
        except RowUnreadable:
            faults.append(UNREADABLE)
        verified = verification()
        tell(
            request,
            Action.AUDIT_VIEWED,
            subject=filters.subject or _subject_found(filters.search, page.rows),
            detail={"page": "events", "filters": list(filters.used())},
        )
        return self.show(
            request,
            "change_list",
            title=_("Audit trail"),
            form=FiltersForm(kept) if form.is_valid() else form,
            actions=sorted(Action),
            faults=faults,
            kept=kept,
            link=request.build_absolute_uri(f"?{urlencode(kept)}"),
            may_export=request.user.has_perm(f"{_APP}.export_auditevent"),
            rows=page.rows,
            verified=verified,
            may_verify=True,
            has_checkpoints=_may_see_checkpoints(request),
            **_ways(page, kept, beside=cursor),
        )

    @looking
    def event_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Show all of one event, and where it is in the log."""
        event, place, faults = None, browsing.Place(leaf_index=None, tree_size=None), []
        try:
            event, place = browsing.event(event_id), browsing.place(event_id)
        except RowUnreadable:
            faults.append(UNREADABLE)
        if event is None and not faults:
            raise Http404
        self._tell_look(request, "event", event_id, event)
        return self.show(
            request,
            "event",
            title=_("Audit event"),
            event=event,
            event_id=event_id,
            detail=_pretty(event.detail) if event else "",
            place=place,
            faults=faults,
            has_checkpoints=_may_see_checkpoints(request),
        )

    @looking
    def proof_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Give the proof of one event as a file, or say why there is none."""
        try:
            event = browsing.event(event_id)
            with reaching_the_trail():
                proof = prove(event_id) if event else ""
        except (LookupError, ValueError):
            messages.error(request, _("There is no proof of this event: it is not sealed yet, or the log is damaged."))
            return HttpResponseRedirect(reverse(f"admin:{_APP}_auditevent_change", args=[event_id]))
        if event is None:
            raise Http404
        self._tell_look(request, "proof", event_id, event)
        return _file(proof, f"proof-{event_id}.json", "application/json")

    def _tell_look(self, request: HttpRequest, page: str, event_id: uuid.UUID, event: AuditEvent | None) -> None:
        tell(
            request,
            Action.AUDIT_VIEWED,
            subject=event.subject if event else "",
            resource=f"AuditEvent/{event_id}",
            detail={"page": page, "filters": []},
        )


@admin.register(AuditCheckpoint)
class AuditCheckpointAdmin(TrailPages, CheckpointAdmin):
    """The checkpoints: a list, and each as the signed note that it is."""

    def get_urls(self) -> list[Any]:
        """Return the list's, a checkpoint's and its note's."""
        return self.routes(
            {
                "changelist": ("", self.list_view),
                "change": ("<int:tree_size>/change/", self.checkpoint_view),
                "note": ("<int:tree_size>/note/", self.note_view),
            }
        )

    @looking
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the checkpoints, newest first."""
        cursor = CheckpointCursor(request.GET)
        faults = cursor.faults()
        page: browsing.Page[AuditCheckpoint, int] = browsing.Page()
        try:
            page = browsing.page_of_checkpoints(**cursor.cleaned_data) if cursor.is_valid() else page
        except RowUnreadable:
            faults.append(UNREADABLE)
        verified = verification()
        tell(request, Action.AUDIT_VIEWED, detail={"page": "checkpoints", "filters": []})
        return self.show(
            request,
            "change_list",
            title=_("Checkpoints of the audit trail"),
            faults=faults,
            rows=[(row, bytes(row.root_hash).hex()) for row in page.rows],
            verified=verified,
            may_verify=request.user.has_perm(f"{_APP}.view_auditevent"),
            **_ways(page, {}, beside=cursor),
        )

    @looking
    def checkpoint_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Show the note of a checkpoint."""
        found = self._look(request, tree_size)
        return self.show(request, "checkpoint", title=_("Checkpoint of the audit trail"), checkpoint=found)

    @looking
    def note_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Give the note of a checkpoint as a file, to be kept where nobody here can reach it."""
        note = self._look(request, tree_size).note
        return _file(note, f"checkpoint-{tree_size}.txt", "text/plain; charset=utf-8")

    def _look(self, request: HttpRequest, tree_size: int) -> AuditCheckpoint:
        try:
            found = browsing.checkpoint(tree_size)
        except RowUnreadable:
            found = None
        if found is None:
            raise Http404
        detail = {"page": "checkpoint", "filters": []}
        tell(request, Action.AUDIT_VIEWED, resource=f"AuditCheckpoint/{tree_size}", detail=detail)
        return found


def tell(request: HttpRequest, action: Action, *, outcome: Outcome = OUTCOMES[0], **told: Any) -> None:
    """Commit an event of whoever makes the request. Raises: AuditUnavailable."""
    record(action, origin=Actor.from_request(request).origin, now=clock.now(), outcome=outcome, **told)


def tell_refusal(request: HttpRequest, opts: Any, *row: Any, act: str = "", about: str = "") -> None:
    """Commit that a page of the model was refused, or an act. Raises: AuditUnavailable.

    It is about that row, if any, or about what about says.
    """
    page = act or str(getattr(request.resolver_match, "url_name", "")).rpartition("_")[2]
    tell(
        request,
        Action.ACCESS_DENIED,
        outcome="failure",
        reason="permission_missing",
        resource=about or "/".join([opts.object_name, *map(str, row)]),
        detail={"page": f"{opts.model_name}/{page}"},
    )


def trail_unavailable(request: HttpRequest, site: admin.AdminSite) -> HttpResponse:
    """Return the page, of status 503, for whoever gets nothing because its event can't be written."""
    context = {**site.each_context(request), "title": _("The audit trail is not available")}
    return TemplateResponse(request, f"admin/{_APP}/trail_unavailable.html", context, status=503)


def _ways(page: browsing.Page[Any, Any], kept: Mapping[str, str], *, beside: Cursor) -> dict[str, str]:
    """Return the query strings of the pages around this one; "" where there is none."""
    newer = urlencode({**kept, "after": page.newer}) if page.newer is not None else ""
    older = urlencode({**kept, "before": page.older}) if page.older is not None else ""
    is_first = beside.is_valid() and set(beside.cleaned_data.values()) == {None}
    return {"newer": newer, "older": older, "newest": "" if is_first else f"?{urlencode(kept)}"}


def _subject_found(term: str, rows: tuple[AuditEvent, ...]) -> str:
    """Return the subject that a search turned out to be about."""
    found = {row.subject for row in rows if row.subject}
    try:
        return str(uuid.UUID(term)) if str(uuid.UUID(term)) in found else ""
    except ValueError:
        return ""


def verification() -> dict[str, Any]:
    """Return the last verification as the pages tell of it; empty when there was none."""
    try:
        event = browsing.last_verification()
    except RowUnreadable:
        return {"unreadable": UNREADABLE}
    if event is None:
        return {}
    detail = _members(event.detail)
    findings = detail.get("findings")
    return {"event": event, **detail, "is_clean": event.outcome == "success" and findings == 0}


def _members(detail: str) -> dict[str, Any]:
    try:
        members = json.loads(detail)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _pretty(detail: str) -> str:
    """Return the detail for people; as it stands where it is no JSON."""
    try:
        return json.dumps(json.loads(detail), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return detail


def _may_see_checkpoints(request: HttpRequest) -> bool:
    return bool(request.user.has_perm(f"{_APP}.view_auditcheckpoint"))


def _file(text: str, name: str, content_type: str) -> HttpResponse:
    disposition = f'attachment; filename="{name}"'
    return HttpResponse(text, content_type=content_type, headers={"Content-Disposition": disposition})
