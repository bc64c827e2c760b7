"""Read-only admin pages of the audit log. Each view is an event that is committed before the
response.
"""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..._internal import clock
from ..._internal.admin_columns import AdminLink
from ..._internal.admin_theme import ThemedModelAdmin
from ..._internal.randomness import get_id_time
from ...errors import KeyMissing
from ...extensions import audit_job_pages
from .. import conf, search
from ..admin_base import TrailAdminMixin, record_request_event, require_view_permission
from ..errors import CheckpointInvalid
from ..event_people import FoundPeople, search_people
from ..events import Action, NewEvent, parse_detail
from ..filters import (
    SHOW_ROUTINE,
    CheckpointCursorForm,
    EventCursorForm,
    EventFiltersForm,
    PageCursorForm,
)
from ..log import archive_files
from ..log.cosigned_checkpoints import build_cosigned_note, list_cosignatures
from ..log.models import ArchiveFile
from ..log.proofs import create_inclusion_proof
from ..models import AuditCheckpoint, AuditEvent
from ..operators import OPERATOR_PREFIX
from ..recorder import record_many
from ..request_context import Actor
from ..search import EventFilters, RowUnreadable
from ..storage import translate_database_errors
from .event_list_filters import describe_filters, list_side_bar_filters
from .event_page import build_event_context
from .event_table import build_event_table, find_people_of_events

if TYPE_CHECKING:
    EventAdmin = admin.ModelAdmin[AuditEvent]
    CheckpointAdmin = admin.ModelAdmin[AuditCheckpoint]
else:
    EventAdmin = CheckpointAdmin = ThemedModelAdmin

_APP_LABEL = AuditEvent._meta.app_label
UNREADABLE_MESSAGE = _(
    "The stored row was altered and is no event any more: run “phi_oidc audit verify” to find it."
)


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
        """Show the matching events, or none and the errors if the filters are not valid.

        A search that names one account is redirected to the events of that person; the redirect
        shows no event.
        """
        form = EventFiltersForm(request.GET)
        cursor = EventCursorForm(request.GET)
        is_valid = all([form.is_valid(), cursor.is_valid()])
        faults = cursor.list_errors()
        filters = EventFilters()
        parameters = dict[str, str]()
        if form.is_valid():
            filters = form.get_filters()
            parameters = form.build_query_parameters()
        else:
            for errors in form.errors.values():
                for fault in errors:
                    faults.append(fault)
        matches = self._find_people(request, filters.search)
        person_links = _build_person_links(matches, parameters)
        if matches.is_single and is_valid:
            return HttpResponseRedirect(person_links[0].url)
        scanned = search.ScannedPage()
        try:
            if is_valid:
                scanned = self._scan_events(request, filters, parameters, cursor)
        except RowUnreadable:
            faults.append(UNREADABLE_MESSAGE)
        rows = scanned.page.rows

        if is_valid:
            archives, searched_event_url = _find_archives(filters, scanned.page, cursor)
        else:
            archives = []
            searched_event_url = ""

        people = find_people_of_events(
            rows,
            actors=[filters.actor, filters.on_behalf_of, filters.person.partition(",")[0]],
            subjects=filters.list_subjects(),
        )
        verified = build_verification_context()
        _record_list_view(request, filters, rows)
        return self.render_page(
            request,
            "change_list",
            title=_("Audit log"),
            faults=faults,
            filters=list_side_bar_filters(
                parameters, people, purposes={row.purpose for row in rows}, now=clock.now()
            ),
            described_filters=list(describe_filters(filters, people)),
            kept=parameters,
            searched=request.GET.get("search", ""),
            person_links=person_links,
            has_more_people=matches.has_more,
            job_urls=_build_job_urls(),
            kept_query=urlencode(parameters),
            may_export=request.user.has_perm(f"{_APP_LABEL}.export_auditevent"),
            rows=build_event_table(rows, people),
            archives=archives,
            searched_event_url=searched_event_url,
            hidden_count=scanned.hidden_count,
            scan_end=get_id_time(scanned.end) if scanned.end else None,
            scan_limit=search.MAX_SCANNED_EVENTS,
            routine=_build_routine_link(parameters),
            verified=verified,
            may_verify=True,
            has_checkpoints=request.user.has_perm(f"{_APP_LABEL}.view_auditcheckpoint"),
            **_build_page_links(scanned.page, parameters, cursor=cursor),
        )

    def _find_people(self, request: HttpRequest, term: str) -> FoundPeople:
        """Return the people that a search names. A UUID, or the operator of a command, is
        searched in the events.
        """
        try:
            uuid.UUID(term)
        except ValueError:
            is_name = bool(term) and not term.startswith(OPERATOR_PREFIX)
            if is_name:
                return search_people(request, self.admin_site, term)
            return FoundPeople()
        return FoundPeople()

    def _scan_events(
        self,
        request: HttpRequest,
        filters: EventFilters,
        parameters: Mapping[str, str],
        cursor: EventCursorForm,
    ) -> search.ScannedPage:
        """Routine events are left out, unless the page shows them or the filters select actions."""
        is_routine_shown = "routine" in parameters or bool(filters.action)
        if is_routine_shown:
            viewer = None
        else:
            viewer = Actor.from_request(request).origin.actor

        return search.scan_events(filters, viewer=viewer, **cursor.cleaned_data)

    @require_view_permission
    def event_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Show an event in words, with all its fields, and its position in the log."""
        event = None
        place = search.LogPosition(leaf_index=None, tree_size=None)
        faults = []
        archives: Sequence[ArchiveFile] = ()
        archived: archive_files.ArchivedEvent | None = None
        try:
            event = search.find_event(event_id)
            place = search.get_log_position(event_id)
        except RowUnreadable:
            faults.append(UNREADABLE_MESSAGE)
        if event is None and not faults:
            archives = archive_files.list_archive_files(event_id, event_id)
            if not archives:
                raise Http404
            if archived := archive_files.read_archived_event(event_id, archives):
                event = archived.event
        self._record_view(request, "event", event_id, event)
        return self.render_page(
            request,
            "event",
            **{
                "title": _("Audit event"),
                "event": event,
                "place": place,
                "faults": faults,
                "archives": [archived.file] if archived else archives,
                "archived": archived,
                "searched_id": event_id,
                "has_checkpoints": request.user.has_perm(f"{_APP_LABEL}.view_auditcheckpoint"),
                **(build_event_context(event) if event else {}),
            },
        )

    @require_view_permission
    def proof_view(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponseBase:
        """Return the proof of an event as a file, or a message if there is none."""
        try:
            event = search.find_event(event_id)
            with translate_database_errors():
                if event:
                    proof = create_inclusion_proof(event_id)
                else:
                    proof = ""
        except (LookupError, ValueError):
            messages.error(
                request,
                _("There is no proof of this event: it is not sealed yet, or the log is damaged."),
            )
            return redirect(f"admin:{_APP_LABEL}_auditevent_change", event_id)
        if event is None:
            raise Http404
        self._record_view(request, "proof", event_id, event)
        return _build_download_response(proof, f"proof-{event_id}.json", "application/json")

    def _record_view(
        self, request: HttpRequest, page: str, event_id: uuid.UUID, event: AuditEvent | None
    ) -> None:
        subject = event.subject if event else ""
        detail = {"page": page, "filters": []}
        record_request_event(
            request,
            Action.AUDIT_VIEWED,
            resource=f"AuditEvent/{event_id}",
            subject=subject,
            detail=detail,
        )


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
            if cursor.is_valid():
                page = search.list_checkpoints(**cursor.cleaned_data)
        except RowUnreadable:
            faults.append(UNREADABLE_MESSAGE)
        verified = build_verification_context()
        record_request_event(
            request, Action.AUDIT_VIEWED, detail={"page": "checkpoints", "filters": []}
        )
        return self.render_page(
            request,
            "change_list",
            title=_("Checkpoints of the audit log"),
            faults=faults,
            rows=[(row, bytes(row.root_hash).hex()) for row in page.rows],
            verified=verified,
            job_urls=_build_job_urls(),
            may_verify=request.user.has_perm(f"{_APP_LABEL}.view_auditevent"),
            **_build_page_links(page, {}, cursor=cursor),
        )

    @require_view_permission
    def checkpoint_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Show the note of a checkpoint."""
        checkpoint = self._get_viewed_checkpoint(request, tree_size)
        return self.render_page(
            request,
            "checkpoint",
            title=_("Checkpoint of the audit log"),
            checkpoint=checkpoint,
            **_build_cosignature_context(checkpoint.note),
            quorum=conf.witness_quorum(),
        )

    @require_view_permission
    def note_view(self, request: HttpRequest, tree_size: int) -> HttpResponseBase:
        """Return the note of a checkpoint as a file, to be kept outside of this system."""
        note = _build_cosignature_context(self._get_viewed_checkpoint(request, tree_size).note)[
            "note"
        ]
        return _build_download_response(
            note, f"checkpoint-{tree_size}.txt", "text/plain; charset=utf-8"
        )

    def _get_viewed_checkpoint(self, request: HttpRequest, tree_size: int) -> AuditCheckpoint:
        try:
            checkpoint = search.find_checkpoint(tree_size)
        except RowUnreadable as error:
            raise Http404 from error
        if checkpoint is None:
            raise Http404
        detail = {"page": "checkpoint", "filters": []}
        record_request_event(
            request, Action.AUDIT_VIEWED, resource=f"AuditCheckpoint/{tree_size}", detail=detail
        )
        return checkpoint


def _build_cosignature_context(note: str) -> dict[str, Any]:
    """Return the note with its cosignatures, and their times; the note alone if it was altered or a
    key is wrong.
    """
    try:
        return {"note": build_cosigned_note(note), "cosignatures": list_cosignatures(note)}
    except (CheckpointInvalid, KeyMissing):
        return {"note": note, "cosignatures": {}}


def _find_archives(
    filters: EventFilters, page: search.KeysetPage[AuditEvent, uuid.UUID], cursor: EventCursorForm
) -> tuple[list[ArchiveFile], str]:
    """Return the archives with older events that the filters may match, if this is the last page.

    With the URL of the page of an event that was searched, if it may be in one of them.
    """
    before = cursor.cleaned_data["before"]
    after = cursor.cleaned_data["after"]
    id_range = search.find_id_range(filters, before, after)
    if id_range is None or after is not None or page.older_key is not None:
        return [], ""
    with suppress(ValueError):
        searched = uuid.UUID(filters.search)
        if not page.rows and (files := archive_files.list_archive_files(searched, searched)):
            return files, reverse(f"admin:{_APP_LABEL}_auditevent_change", args=[searched])
    return archive_files.list_archive_files(*id_range), ""


def _build_person_links(found: FoundPeople, parameters: Mapping[str, str]) -> list[AdminLink]:
    """Return a link for each person to the events by and about it, with the other filters."""
    rest = {}
    for key, value in parameters.items():
        if key != "search":
            rest[key] = value
    person_links = []
    for person in found.people:
        person_links.append(
            AdminLink(person.label, f"?{urlencode({**rest, 'person': person.person_filter})}")
        )
    return person_links


def _build_job_urls() -> dict[str, str]:
    """Return the URLs of the pages that export and verify; empty without an app for that."""
    for pages in audit_job_pages:
        return {
            "jobs": reverse(pages.jobs),
            "export": reverse(pages.export),
            "verify": reverse(pages.verify),
            "verify_file": reverse(pages.verify_file),
        }
    return {}


def _build_routine_link(parameters: Mapping[str, str]) -> AdminLink | None:
    """Return the link that shows or hides routine events; None if the filters select actions."""
    if "action" in parameters:
        return None
    rest = {}
    for key, value in parameters.items():
        if key != "routine":
            rest[key] = value
    if "routine" in parameters:
        return AdminLink(gettext("Hide routine events"), f"?{urlencode(rest)}")
    return AdminLink(
        gettext("Show routine events"), f"?{urlencode({**rest, 'routine': SHOW_ROUTINE})}"
    )


def _record_list_view(
    request: HttpRequest, filters: EventFilters, rows: tuple[AuditEvent, ...]
) -> None:
    """Commit an event for each subject that the filters name, or that the search found. Raises:
    AuditUnavailable.
    """
    subjects = filters.list_subjects() or (_find_searched_subject(filters.search, rows),)
    detail = {"page": "events", "filters": list(filters.list_used_names())}
    origin = Actor.from_request(request).origin
    now = clock.now()
    record_many(
        [
            NewEvent(Action.AUDIT_VIEWED, origin, now, subject=subject, detail=detail)
            for subject in subjects
        ]
    )


def _build_page_links(
    page: search.KeysetPage[Any, Any],
    filter_parameters: Mapping[str, str],
    *,
    cursor: PageCursorForm,
) -> dict[str, str]:
    """Return the query strings of the adjacent pages; "" without such."""
    if page.newer_key is not None:
        newer = urlencode({**filter_parameters, "after": page.newer_key})
    else:
        newer = ""

    if page.older_key is not None:
        older = urlencode({**filter_parameters, "before": page.older_key})
    else:
        older = ""

    is_first = cursor.is_valid() and set(cursor.cleaned_data.values()) == {None}
    if is_first:
        newest = ""
    else:
        newest = f"?{urlencode(filter_parameters)}"

    return {"newer": newer, "older": older, "newest": newest}


def _find_searched_subject(term: str, rows: tuple[AuditEvent, ...]) -> str:
    """Return the subject that the search term is, judging by the result rows; "" if it is not a
    subject.
    """
    try:
        subject = str(uuid.UUID(term))
    except ValueError:
        return ""
    if any(row.subject == subject for row in rows):
        return subject
    return ""


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


def _build_download_response(text: str, filename: str, content_type: str) -> HttpResponse:
    disposition = f'attachment; filename="{filename}"'
    return HttpResponse(
        text, content_type=content_type, headers={"Content-Disposition": disposition}
    )
