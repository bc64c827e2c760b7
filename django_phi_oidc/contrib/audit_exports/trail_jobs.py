"""Exports and verifications of the audit log in the admin. Each export is recorded before its first
byte.
"""

import dataclasses
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import Q
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from ..._internal import clock, randomness
from ..._internal.admin_theme import ThemedModelAdmin
from ...audit.admin_base import (
    TrailAdminMixin,
    record_request_event,
    require_trail_permission,
    require_view_permission,
)
from ...audit.descriptions import get_reason_label
from ...audit.events import Action, NewEvent
from ...audit.filters import EventFiltersForm
from ...audit.recorder import record_many
from ...audit.request_context import Actor
from ...audit.search import EventFilters, RowUnreadable, has_more_events_than
from ...errors import AuditUnavailable
from ...subjects.people import find_people
from ..common.hostname import get_hostname
from . import conf
from .event_export import CONTENT_TYPES, FILE_EXTENSIONS, export_events, incomplete_marker
from .exported_files import ExportedFileForm, build_file_context, verify_uploaded_file
from .jobs import RETENTION_PERIOD, has_too_many_exports, open_export_file, request_job
from .models import TrailJob

MAX_STREAMED_EVENTS = 10_000
"""Up to this many events are streamed; for more, a worker writes a file."""
_MAX_LISTED_JOBS = 50
_LATE_AFTER = timedelta(minutes=2)
_TRAIL_URL_NAME = "admin:phi_oidc_audit_auditevent_changelist"
_JOB_URL_NAME = "admin:phi_oidc_audit_exports_trailjob_change"

_require_post = partial(require_trail_permission, methods=("POST",))
require_verification_permission = partial(
    _require_post, has_permission=lambda page, req: page.has_view_permission(req)
)
require_file_permission = partial(
    require_trail_permission,
    methods=("GET", "HEAD", "POST"),
    has_permission=lambda page, req: page.has_view_permission(req),
)
require_export_permission = partial(
    _require_post,
    has_permission=lambda page, req: page.can_export(req),
    permission="phi_oidc_audit.export_auditevent",
)


class TrailJobAdmin(TrailAdminMixin, ThemedModelAdmin):
    """The jobs of a worker: the exports of this user, and the verifications of all users."""

    def get_view_permission(self) -> str:
        return "phi_oidc_audit.view_auditevent"

    def can_export(self, request: HttpRequest) -> bool:
        """Return True if this user may export events, which takes both permissions."""
        return self.has_view_permission(request) and request.user.has_perm(
            "phi_oidc_audit.export_auditevent"
        )

    def get_urls(self) -> list[Any]:
        return self.build_urls(
            {
                "changelist": ("", self.list_view),
                "export": ("export/", self.export_view),
                "verify": ("verify/", self.verify_view),
                "file": ("file/", self.file_view),
                "change": ("<uuid:job_id>/change/", self.job_view),
                "download": ("<uuid:job_id>/download/", self.download_view),
            }
        )

    @require_view_permission
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the newest jobs. No event is on this page or on that of a job, so viewing them is
        not recorded.
        """
        is_visible = Q(kind=TrailJob.VERIFICATION) | Q(asked_by=str(request.user.pk))
        jobs = list(TrailJob.objects.filter(is_visible).order_by("-asked_at")[:_MAX_LISTED_JOBS])
        people = find_people(actors={job.asked_by for job in jobs})
        rows = []
        for job in jobs:
            rows.append((job, people.find_actor(job.asked_by)))
        return self.render_page(
            request, "change_list", title=_("Exports and verifications"), jobs=rows
        )

    @require_view_permission
    def job_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
        job = self._get_job(request, job_id)
        is_late = job.is_open and not job.attempts and clock.now() - job.asked_at > _LATE_AFTER

        if job.kind == TrailJob.EXPORT:
            title = _("Export")
        else:
            title = _("Verification")

        asked_by = find_people(actors=[job.asked_by]).find_actor(job.asked_by)
        fault = get_reason_label(job.fault)
        gone_at = job.asked_at + RETENTION_PERIOD
        return self.render_page(
            request,
            "job",
            title=title,
            may_export=self.can_export(request),
            job=job,
            asked_by=asked_by,
            fault=fault,
            is_late=is_late,
            gone_at=gone_at,
        )

    @require_verification_permission
    def verify_view(self, request: HttpRequest) -> HttpResponseBase:
        return self._create_job_response(TrailJob.VERIFICATION, request)

    @require_file_permission
    def file_view(self, request: HttpRequest) -> HttpResponseBase:
        """Compare an exported file with the sealed log, for the filters of the export."""
        filters_form = EventFiltersForm(request.POST or request.GET)
        if not filters_form.is_valid():
            return self._redirect_with_error(
                request, _("Nothing was verified: the filters are invalid.")
            )
        form = ExportedFileForm(request.POST or None, request.FILES or None)
        result = None
        fault = ""
        if request.method == "POST" and form.is_valid():
            result, fault = verify_uploaded_file(
                request, form.cleaned_data["file"], filters_form.get_filters()
            )
        return self.render_page(
            request,
            "file",
            title=_("Verify an exported file"),
            form=form,
            result=result,
            fault=fault,
            **build_file_context(filters_form),
        )

    @require_export_permission
    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Stream the events that match the filters, or request a file from a worker when there are
        many.
        """
        form = EventFiltersForm(request.POST)
        export_format = request.POST.get("format", "")
        if not form.is_valid() or export_format not in CONTENT_TYPES:
            return self._redirect_with_error(
                request, _("Nothing was exported: the filters or the format are invalid.")
            )
        now = clock.now()
        requested_filters = form.get_filters()
        # Exclude events that arrive during the export, such as the event of this export.
        until = min(requested_filters.until or now, now)
        filters = dataclasses.replace(requested_filters, until=until)
        job_id = None
        if has_more_events_than(filters, MAX_STREAMED_EVENTS):
            job_id = randomness.uuid7(now)

        if job_id and conf.export_folder() is None:
            message = _(
                "Nothing was exported: there are more than 10,000 events. Narrow the filters."
            )
            return self._redirect_with_error(request, message)
        if job_id and has_too_many_exports(str(request.user.pk)):
            message = _(
                "Nothing was exported: download your other exports first, or wait for a day."
            )
            return self._redirect_with_error(request, message)

        if job_id:
            resource = f"TrailJob/{job_id}"
        else:
            resource = ""

        detail = {
            "format": export_format,
            "filters": list(requested_filters.list_used_names()),
        }
        origin = Actor.from_request(request).origin
        events = []
        for subject in requested_filters.list_subjects() or ("",):
            event = NewEvent(
                Action.AUDIT_EXPORTED,
                origin,
                now,
                subject=subject,
                resource=resource,
                detail=detail,
            )
            events.append(event)
        record_many(events)
        if job_id:
            parameters = {**form.build_query_parameters(), "until": until.isoformat()}
            return self._create_job_response(
                TrailJob.EXPORT, request, id=job_id, format=export_format, filters=parameters
            )
        name = f"audit-trail-{now:%Y%m%dT%H%M%SZ}.{FILE_EXTENSIONS[export_format]}"
        return StreamingHttpResponse(
            _stream_export(filters, export_format),
            content_type=CONTENT_TYPES[export_format],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @require_export_permission
    def download_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
        """Return the file of an export to the user that requested it, once."""
        job = self._get_job(request, job_id)
        folder = conf.export_folder()
        detail: dict[str, Any] = {"page": "export", "filters": []}
        record_request_event(
            request, Action.AUDIT_VIEWED, resource=f"TrailJob/{job.pk}", detail=detail
        )
        try:
            if folder is None or job.kind != TrailJob.EXPORT:
                raise LookupError
            file = open_export_file(job, folder=folder)
        except LookupError:
            messages.error(
                request, _("There is no file: it was already downloaded, or was deleted.")
            )
            return HttpResponseRedirect(reverse(_JOB_URL_NAME, args=[job.pk]))
        name = f"audit-trail-{job.asked_at:%Y%m%dT%H%M%SZ}.{FILE_EXTENSIONS[job.format]}"
        return FileResponse(
            file, as_attachment=True, filename=name, content_type=CONTENT_TYPES[job.format]
        )

    def _get_job(self, request: HttpRequest, job_id: uuid.UUID) -> TrailJob:
        """Return the job. Raises: Http404; PermissionDenied for an export of another user."""
        job = TrailJob.objects.filter(pk=job_id).first()
        if job is None:
            raise Http404
        if job.kind == TrailJob.EXPORT and job.asked_by != str(request.user.pk):
            self.deny(request, job_id)
        return job

    def _create_job_response(
        self, kind: str, request: HttpRequest, **fields: Any
    ) -> HttpResponseBase:
        job = request_job(kind, asked_by=str(request.user.pk), now=clock.now(), **fields)
        return HttpResponseRedirect(reverse(_JOB_URL_NAME, args=[job.pk]))

    def _redirect_with_error(self, request: HttpRequest, message: Any) -> HttpResponseBase:
        messages.error(request, message)
        return HttpResponseRedirect(reverse(_TRAIL_URL_NAME))


def _stream_export(filters: EventFilters, export_format: str) -> Iterator[bytes]:
    """Yield the lines. If the audit log becomes unreadable, the last line says so."""
    try:
        for _count, lines in export_events(filters, export_format, hostname=get_hostname()):
            yield lines
    except RowUnreadable:
        yield incomplete_marker(export_format, "row_unreadable")
    except AuditUnavailable as error:
        yield incomplete_marker(export_format, error.code)
