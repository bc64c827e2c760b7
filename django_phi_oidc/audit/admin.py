"""Read-only admin pages of the audit log. Each view is an event that is committed before the response."""

import json
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext_lazy as _

from .._internal import clock
from ..errors import AuditUnavailable
from . import search
from .events import OUTCOMES, Action, EventOutcome, parse_detail
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
UNREADABLE_MESSAGE = _("The stored row was altered and is no event any more: run “phi_oidc audit verify” to find it.")


def require_trail_permission(
    view: TrailView, *, methods: Collection[str], has_permission: Callable[[Any, HttpRequest], bool]
) -> TrailView:
    """Check a permission before the view. Refusals are events too; without the audit log nothing is permitted."""

    @wraps(view)
    def guarded_view(self: Any, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            if not has_permission(self, request):
                self.deny(request, *kwargs.values())
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            return view(self, request, **kwargs)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)

    return guarded_view


def require_view_permission(view: TrailView) -> TrailView:
    """Check the view permission before a view for GET and HEAD."""
    return require_trail_permission(
        view, methods=("GET", "HEAD"), has_permission=lambda page, request: page.has_view_permission(request)
    )


class TrailAdminMixin:
    """What the audit pages use of Django's admin: layout and sign-in, but no way to change anything."""

    opts: Any
    model: Any
    admin_site: admin.AdminSite

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(f"{_APP_LABEL}.view_{self.opts.model_name}"))

    def deny(self, request: HttpRequest, *row_keys: Any) -> NoReturn:
        """Refuse the request, after its event is committed. Raises: PermissionDenied, AuditUnavailable."""
        # Keys without a row come from the URL, and are not written to the event.
        with translate_database_errors():
            rows = [key for key in row_keys if self.model._base_manager.filter(pk=key).exists()]
        record_access_denied(request, self.opts, *rows)
        raise PermissionDenied

    def build_urls(self, views: Mapping[str, tuple[str, TrailView]]) -> list[Any]:
        """Return the URLs of these views only: the admin's own views would read without an event."""
        prefix = f"{_APP_LABEL}_{self.opts.model_name}"
        wrap = self.admin_site.admin_view
        return [path(route, wrap(view), name=f"{prefix}_{name}") for name, (route, view) in views.items()]

    def render_page(self, request: HttpRequest, template_name: str, **context: Any) -> HttpResponseBase:
        """Render an admin page. Its data must be loaded already: templates make no queries."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"admin/{_APP_LABEL}/{self.opts.model_name}/{template_name}.html", frame)


@admin.register(AuditEvent)
class AuditEventAdmin(TrailAdminMixin, EventAdmin):
    """Events: a list with filters, single events, and their proofs."""

    def get_urls(self) -> list[Any]:
        return self.build_urls(
            {
                "changelist": ("", self.list_view),
                "change": ("<uuid:event_id>/change/", self.event_view),
                "proof": ("<uuid:event_id>/proof/", self.proof_view),
            }
        )

    @require_view_permission
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the matching events, or none and the errors if the filters are not valid."""
        form, cursor = EventFiltersForm(request.GET), EventCursorForm(request.GET)
        is_valid, faults = all([form.is_valid(), cursor.is_valid()]), cursor.list_errors()
        filters, parameters = EventFilters(), dict[str, str]()
        if form.is_valid():
            filters, parameters = form.get_filters(), form.build_query_parameters()
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
            title=_("Audit log"),
            form=EventFiltersForm(parameters) if form.is_valid() else form,
            actions=sorted(Action),
            faults=faults,
            kept=parameters,
            link=request.build_absolute_uri(f"?{urlencode(parameters)}"),
            may_export=request.user.has_perm(f"{_APP_LABEL}.export_auditevent"),
            rows=page.rows,
            verified=verified,
            may_verify=True,
            has_checkpoints=request.user.has_perm(f"{_APP_LABEL}.view_auditcheckpoint"),
            **_build_page_links(page, parameters, cursor=cursor),
        )

    @require_view_permission
    def event_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Show all fields of an event, and its position in the log."""
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
            has_checkpoints=request.user.has_perm(f"{_APP_LABEL}.view_auditcheckpoint"),
        )

    @require_view_permission
    def proof_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Return the proof of an event as a file, or a message if there is none."""
        try:
            event = search.find_event(event_id)
            with translate_database_errors():
                proof = create_inclusion_proof(event_id) if event else ""
        except (LookupError, ValueError):
            messages.error(request, _("There is no proof of this event: it is not sealed yet, or the log is damaged."))
            return redirect(f"admin:{_APP_LABEL}_auditevent_change", event_id)
        if event is None:
            raise Http404
        self._record_view(request, "proof", event_id, event)
        return _build_download_response(proof, f"proof-{event_id}.json", "application/json")

    def _record_view(self, request: HttpRequest, page: str, event_id: uuid.UUID, event: AuditEvent | None) -> None:
        fields: dict[str, Any] = {"subject": event.subject if event else "", "detail": {"page": page, "filters": []}}
        record_request_event(request, Action.AUDIT_VIEWED, resource=f"AuditEvent/{event_id}", **fields)


@admin.register(AuditCheckpoint)
class AuditCheckpointAdmin(TrailAdminMixin, CheckpointAdmin):
    """Checkpoints: a list, and the signed notes."""

    def get_urls(self) -> list[Any]:
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
            title=_("Checkpoints of the audit log"),
            faults=faults,
            rows=[(row, bytes(row.root_hash).hex()) for row in page.rows],
            verified=verified,
            may_verify=request.user.has_perm(f"{_APP_LABEL}.view_auditevent"),
            **_build_page_links(page, {}, cursor=cursor),
        )

    @require_view_permission
    def checkpoint_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Show the note of a checkpoint."""
        checkpoint = self._get_viewed_checkpoint(request, tree_size)
        return self.render_page(request, "checkpoint", title=_("Checkpoint of the audit log"), checkpoint=checkpoint)

    @require_view_permission
    def note_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Return the note of a checkpoint as a file, to be kept outside of this system."""
        note = self._get_viewed_checkpoint(request, tree_size).note
        return _build_download_response(note, f"checkpoint-{tree_size}.txt", "text/plain; charset=utf-8")

    def _get_viewed_checkpoint(self, request: HttpRequest, tree_size: int) -> AuditCheckpoint:
        try:
            checkpoint = search.find_checkpoint(tree_size)
        except RowUnreadable as error:
            raise Http404 from error
        if checkpoint is None:
            raise Http404
        detail = {"page": "checkpoint", "filters": []}
        record_request_event(request, Action.AUDIT_VIEWED, resource=f"AuditCheckpoint/{tree_size}", detail=detail)
        return checkpoint


def record_request_event(
    request: HttpRequest, action: Action, *, outcome: EventOutcome = OUTCOMES[0], **event_fields: Any
) -> None:
    """Commit an event with the request's user as its actor. Raises: AuditUnavailable."""
    record(action, origin=Actor.from_request(request).origin, now=clock.now(), outcome=outcome, **event_fields)


def record_access_denied(
    request: HttpRequest, opts: Any, *row_keys: Any, operation: str = "", resource: str = ""
) -> None:
    """Commit that a page of a model, or an operation, was refused. Raises: AuditUnavailable.

    row_keys: the row concerned, if any. operation: by default the page. resource: replaces the model and row.
    """
    page = operation or str(getattr(request.resolver_match, "url_name", "")).rpartition("_")[2]
    resource, detail = (
        resource or "/".join([opts.object_name, *map(str, row_keys)]),
        {"page": f"{opts.model_name}/{page}"},
    )
    fields: dict[str, Any] = {"reason": "permission_missing", "resource": resource, "detail": detail}
    record_request_event(request, Action.ACCESS_DENIED, outcome="failure", **fields)


def render_trail_unavailable(request: HttpRequest, site: admin.AdminSite) -> HttpResponse:
    """Return the page, with status 503, for requests whose event cannot be written."""
    context = {**site.each_context(request), "title": _("The audit log is not available")}
    return TemplateResponse(request, f"admin/{_APP_LABEL}/trail_unavailable.html", context, status=503)


def _build_page_links(
    page: search.KeysetPage[Any, Any], filter_parameters: Mapping[str, str], *, cursor: PageCursorForm
) -> dict[str, str]:
    """Return the query strings of the adjacent pages; "" without such."""
    newer = urlencode({**filter_parameters, "after": page.newer_key}) if page.newer_key is not None else ""
    older = urlencode({**filter_parameters, "before": page.older_key}) if page.older_key is not None else ""
    is_first = cursor.is_valid() and set(cursor.cleaned_data.values()) == {None}
    return {"newer": newer, "older": older, "newest": "" if is_first else f"?{urlencode(filter_parameters)}"}


def _find_searched_subject(term: str, rows: tuple[AuditEvent, ...]) -> str:
    """Return the subject that the search term is, judging by the result rows; "" if it is not a subject."""
    try:
        subject = str(uuid.UUID(term))
    except ValueError:
        return ""
    return subject if any(row.subject == subject for row in rows) else ""


def build_verification_context() -> dict[str, Any]:
    """Return the last verification for the templates; empty if there was none."""
    try:
        event = search.find_last_verification()
    except RowUnreadable:
        return {"unreadable": UNREADABLE_MESSAGE}
    if event is None:
        return {}
    detail = parse_detail(event.detail)
    is_clean = event.outcome == "success" and detail.get("findings") == 0
    return {"event": event, **detail, "is_clean": is_clean}


def _format_detail(detail: str) -> str:
    """Return the detail with line breaks; unchanged if it is not JSON."""
    try:
        return json.dumps(json.loads(detail), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return detail


def _build_download_response(text: str, filename: str, content_type: str) -> HttpResponse:
    disposition = f'attachment; filename="{filename}"'
    return HttpResponse(text, content_type=content_type, headers={"Content-Disposition": disposition})
