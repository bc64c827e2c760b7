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

from .._internal import clock
from ..errors import AuditUnavailable
from . import search
from .events import OUTCOMES, Action, EventOutcome
from .filters import CheckpointCursorForm, EventCursorForm, EventFiltersForm, PageCursorForm
from .log.proofs import create_inclusion_proof
from .models import AuditCheckpoint, AuditEvent
from .recorder import record
from .request_context import Actor
from .search import EventFilters, RowUnreadable
from .storage import translate_database_errors

if TYPE_CHECKING:
    EventAdmin = admin.ModelAdmin[AuditEvent]
    CheckpointAdmin = admin.ModelAdmin[AuditCheckpoint]
else:
    EventAdmin = CheckpointAdmin = admin.ModelAdmin

TrailView = Callable[..., HttpResponseBase]
_APP_LABEL = "django_phi_oidc"
UNREADABLE_MESSAGE = _(
    "What is stored here was altered and is no event any more: “phi_oidc audit verify” tells which it is."
)


def require_trail_permission(
    view: TrailView, *, methods: Collection[str], has_permission: Callable[[Any, HttpRequest], bool]
) -> TrailView:
    """Let those in who may. A refusal is an event, too; without the trail nobody sees or does anything."""

    @wraps(view)
    def guarded(self: Any, request: HttpRequest, **asked: Any) -> HttpResponseBase:
        try:
            if not has_permission(self, request):
                self.deny(request, *asked.values())
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            return view(self, request, **asked)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)

    return guarded


def require_view_permission(view: TrailView) -> TrailView:
    """Let those look who may."""
    return require_trail_permission(
        view, methods=("GET", "HEAD"), has_permission=lambda pages, request: pages.has_view_permission(request)
    )


class TrailAdminMixin:
    """What all pages of the trail have of Django's admin: its frame, its sign-in, and no way to change anything."""

    opts: Any
    model: Any
    admin_site: admin.AdminSite

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(f"{_APP_LABEL}.view_{self.opts.model_name}"))

    def deny(self, request: HttpRequest, *row_keys: Any) -> NoReturn:
        """Refuse what is asked for, after the event of it. Raises: PermissionDenied, AuditUnavailable."""
        # A key that is nobody's is not written.
        with translate_database_errors():
            rows = [key for key in row_keys if self.model._base_manager.filter(pk=key).exists()]
        record_access_denied(request, self.opts, *rows)
        raise PermissionDenied

    def build_urls(self, views: Mapping[str, tuple[str, TrailView]]) -> list[Any]:
        """Return the URLs of these pages: there are no others, so nothing of the admin's own looks without an event."""
        prefix = f"{_APP_LABEL}_{self.opts.model_name}"
        return [
            path(route, self.admin_site.admin_view(view), name=f"{prefix}_{name}")
            for name, (route, view) in views.items()
        ]

    def render_page(self, request: HttpRequest, template_name: str, **context: Any) -> HttpResponseBase:
        """Return a page of the admin's. What its template shows is loaded already: it asks no database."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"admin/{_APP_LABEL}/{self.opts.model_name}/{template_name}.html", frame)


@admin.register(AuditEvent)
class AuditEventAdmin(TrailAdminMixin, EventAdmin):
    """The events: a list by filters, and one by one, each with its proof."""

    def get_urls(self) -> list[Any]:
        """Return the list's, an event's and a proof's."""
        return self.build_urls(
            {
                "changelist": ("", self.list_view),
                "change": ("<uuid:event_id>/change/", self.event_view),
                "proof": ("<uuid:event_id>/proof/", self.proof_view),
            }
        )

    @require_view_permission
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the events that the filters let through, or say what is wrong with the filters, and show none."""
        form, cursor = EventFiltersForm(request.GET), EventCursorForm(request.GET)
        is_valid, faults = all([form.is_valid(), cursor.is_valid()]), cursor.list_errors()
        filters, kept = (form.get_filters(), form.build_query_parameters()) if form.is_valid() else (EventFilters(), {})
        page: search.KeysetPage[AuditEvent, uuid.UUID] = search.KeysetPage()
        try:
            page = search.list_events(filters, **cursor.cleaned_data) if is_valid else page
        except RowUnreadable:
            faults.append(UNREADABLE_MESSAGE)
        verified = build_verification_context()
        record_request_event(
            request,
            Action.AUDIT_VIEWED,
            subject=filters.subject or _find_searched_subject(filters.search, page.rows),
            detail={"page": "events", "filters": list(filters.list_used_names())},
        )
        return self.render_page(
            request,
            "change_list",
            title=_("Audit trail"),
            form=EventFiltersForm(kept) if form.is_valid() else form,
            actions=sorted(Action),
            faults=faults,
            kept=kept,
            link=request.build_absolute_uri(f"?{urlencode(kept)}"),
            may_export=request.user.has_perm(f"{_APP_LABEL}.export_auditevent"),
            rows=page.rows,
            verified=verified,
            may_verify=True,
            has_checkpoints=_can_view_checkpoints(request),
            **_build_page_links(page, kept, cursor=cursor),
        )

    @require_view_permission
    def event_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Show all of one event, and where it is in the log."""
        event, place, faults = None, search.LogPosition(leaf_index=None, tree_size=None), []
        try:
            event, place = search.find_event(event_id), search.get_log_position(event_id)
        except RowUnreadable:
            faults.append(UNREADABLE_MESSAGE)
        if event is None and not faults:
            raise Http404
        self._record_view(request, "event", event_id, event)
        return self.render_page(
            request,
            "event",
            title=_("Audit event"),
            event=event,
            event_id=event_id,
            detail=_format_detail(event.detail) if event else "",
            place=place,
            faults=faults,
            has_checkpoints=_can_view_checkpoints(request),
        )

    @require_view_permission
    def proof_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Give the proof of one event as a file, or say why there is none."""
        try:
            event = search.find_event(event_id)
            with translate_database_errors():
                proof = create_inclusion_proof(event_id) if event else ""
        except (LookupError, ValueError):
            messages.error(request, _("There is no proof of this event: it is not sealed yet, or the log is damaged."))
            return HttpResponseRedirect(reverse(f"admin:{_APP_LABEL}_auditevent_change", args=[event_id]))
        if event is None:
            raise Http404
        self._record_view(request, "proof", event_id, event)
        return _build_download_response(proof, f"proof-{event_id}.json", "application/json")

    def _record_view(self, request: HttpRequest, page: str, event_id: uuid.UUID, event: AuditEvent | None) -> None:
        record_request_event(
            request,
            Action.AUDIT_VIEWED,
            subject=event.subject if event else "",
            resource=f"AuditEvent/{event_id}",
            detail={"page": page, "filters": []},
        )


@admin.register(AuditCheckpoint)
class AuditCheckpointAdmin(TrailAdminMixin, CheckpointAdmin):
    """The checkpoints: a list, and each as the signed note that it is."""

    def get_urls(self) -> list[Any]:
        """Return the list's, a checkpoint's and its note's."""
        return self.build_urls(
            {
                "changelist": ("", self.list_view),
                "change": ("<int:tree_size>/change/", self.checkpoint_view),
                "note": ("<int:tree_size>/note/", self.note_view),
            }
        )

    @require_view_permission
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the checkpoints, newest first."""
        cursor = CheckpointCursorForm(request.GET)
        faults = cursor.list_errors()
        page: search.KeysetPage[AuditCheckpoint, int] = search.KeysetPage()
        try:
            page = search.list_checkpoints(**cursor.cleaned_data) if cursor.is_valid() else page
        except RowUnreadable:
            faults.append(UNREADABLE_MESSAGE)
        verified = build_verification_context()
        record_request_event(request, Action.AUDIT_VIEWED, detail={"page": "checkpoints", "filters": []})
        return self.render_page(
            request,
            "change_list",
            title=_("Checkpoints of the audit trail"),
            faults=faults,
            rows=[(row, bytes(row.root_hash).hex()) for row in page.rows],
            verified=verified,
            may_verify=request.user.has_perm(f"{_APP_LABEL}.view_auditevent"),
            **_build_page_links(page, {}, cursor=cursor),
        )

    @require_view_permission
    def checkpoint_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Show the note of a checkpoint."""
        found = self._get_viewed_checkpoint(request, tree_size)
        return self.render_page(request, "checkpoint", title=_("Checkpoint of the audit trail"), checkpoint=found)

    @require_view_permission
    def note_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Give the note of a checkpoint as a file, to be kept where nobody here can reach it."""
        note = self._get_viewed_checkpoint(request, tree_size).note
        return _build_download_response(note, f"checkpoint-{tree_size}.txt", "text/plain; charset=utf-8")

    def _get_viewed_checkpoint(self, request: HttpRequest, tree_size: int) -> AuditCheckpoint:
        try:
            found = search.find_checkpoint(tree_size)
        except RowUnreadable:
            found = None
        if found is None:
            raise Http404
        detail = {"page": "checkpoint", "filters": []}
        record_request_event(request, Action.AUDIT_VIEWED, resource=f"AuditCheckpoint/{tree_size}", detail=detail)
        return found


def record_request_event(
    request: HttpRequest, action: Action, *, outcome: EventOutcome = OUTCOMES[0], **event_fields: Any
) -> None:
    """Commit an event of whoever makes the request. Raises: AuditUnavailable."""
    record(action, origin=Actor.from_request(request).origin, now=clock.now(), outcome=outcome, **event_fields)


def record_access_denied(
    request: HttpRequest, opts: Any, *row_keys: Any, operation: str = "", resource: str = ""
) -> None:
    """Commit that a page of the model was refused, or an act. Raises: AuditUnavailable.

    It is about that row, if any, or about what about says.
    """
    page = operation or str(getattr(request.resolver_match, "url_name", "")).rpartition("_")[2]
    record_request_event(
        request,
        Action.ACCESS_DENIED,
        outcome="failure",
        reason="permission_missing",
        resource=resource or "/".join([opts.object_name, *map(str, row_keys)]),
        detail={"page": f"{opts.model_name}/{page}"},
    )


def render_trail_unavailable(request: HttpRequest, site: admin.AdminSite) -> HttpResponse:
    """Return the page, of status 503, for whoever gets nothing because its event can't be written."""
    context = {**site.each_context(request), "title": _("The audit trail is not available")}
    return TemplateResponse(request, f"admin/{_APP_LABEL}/trail_unavailable.html", context, status=503)


def _build_page_links(
    page: search.KeysetPage[Any, Any], filter_parameters: Mapping[str, str], *, cursor: PageCursorForm
) -> dict[str, str]:
    """Return the query strings of the pages around this one; "" where there is none."""
    newer = urlencode({**filter_parameters, "after": page.newer_key}) if page.newer_key is not None else ""
    older = urlencode({**filter_parameters, "before": page.older_key}) if page.older_key is not None else ""
    is_first = cursor.is_valid() and set(cursor.cleaned_data.values()) == {None}
    return {"newer": newer, "older": older, "newest": "" if is_first else f"?{urlencode(filter_parameters)}"}


def _find_searched_subject(term: str, rows: tuple[AuditEvent, ...]) -> str:
    """Return the subject that a search turned out to be about."""
    found = {row.subject for row in rows if row.subject}
    try:
        return str(uuid.UUID(term)) if str(uuid.UUID(term)) in found else ""
    except ValueError:
        return ""


def build_verification_context() -> dict[str, Any]:
    """Return the last verification as the pages tell of it; empty when there was none."""
    try:
        event = search.find_last_verification()
    except RowUnreadable:
        return {"unreadable": UNREADABLE_MESSAGE}
    if event is None:
        return {}
    detail = _parse_detail(event.detail)
    findings = detail.get("findings")
    return {"event": event, **detail, "is_clean": event.outcome == "success" and findings == 0}


def _parse_detail(detail: str) -> dict[str, Any]:
    try:
        members = json.loads(detail)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _format_detail(detail: str) -> str:
    """Return the detail for people; as it stands where it is no JSON."""
    try:
        return json.dumps(json.loads(detail), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return detail


def _can_view_checkpoints(request: HttpRequest) -> bool:
    return bool(request.user.has_perm(f"{_APP_LABEL}.view_auditcheckpoint"))


def _build_download_response(text: str, filename: str, content_type: str) -> HttpResponse:
    disposition = f'attachment; filename="{filename}"'
    return HttpResponse(text, content_type=content_type, headers={"Content-Disposition": disposition})
