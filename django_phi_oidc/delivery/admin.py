"""Exports and verifications that are asked for on the trail's pages. Each export is an event before its first byte."""

import dataclasses
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
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

from .. import clock, conf, entropy
from ..audit.admin import TrailPages, View, guarding, looking, tell
from ..audit.asking import FiltersForm
from ..audit.browsing import Filters, RowUnreadable, is_beyond
from ..audit.events import Action
from ..errors import AuditUnavailable
from .exporting import CONTENT_TYPES, ENDINGS, export, torn
from .models import TrailJob
from .tasks import site
from .working import KEPT_FOR, ask, has_too_many, take_file

if TYPE_CHECKING:
    JobAdmin = admin.ModelAdmin[TrailJob]
else:
    JobAdmin = admin.ModelAdmin

MOST_AT_ONCE = 10_000
"""Events of an export that is streamed; of more, a worker makes a file."""
_SHOWN = 50
_SOON = timedelta(minutes=2)
_TRAIL, _JOB = (f"admin:django_phi_oidc_{name}" for name in ("auditevent_changelist", "trailjob_change"))


def asking(view: View) -> View:
    """Let those look, and ask for a verification, who may see the trail."""
    return guarding(view, methods=("POST",), may=lambda pages, request: pages.has_view_permission(request))


def taking(view: View) -> View:
    """Let those take events out of the trail who may."""
    return guarding(view, methods=("POST",), may=lambda pages, request: pages.may_export(request))


@admin.register(TrailJob)
class TrailJobAdmin(TrailPages, JobAdmin):
    """What a worker does, or has done, for whoever asked: their own exports, and everybody's verifications."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("django_phi_oidc.view_auditevent"))

    def may_export(self, request: HttpRequest) -> bool:
        """Say whether this person may take events out of the trail; that takes both permissions."""
        return self.has_view_permission(request) and request.user.has_perm("django_phi_oidc.export_auditevent")

    def get_urls(self) -> list[Any]:
        """Return the list's, a job's and its file's, and those by which one is asked for."""
        return self.routes(
            {
                "changelist": ("", self.list_view),
                "export": ("export/", self.export_view),
                "verify": ("verify/", self.verify_view),
                "change": ("<uuid:job_id>/change/", self.job_view),
                "download": ("<uuid:job_id>/download/", self.download_view),
            }
        )

    @looking
    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the newest jobs. Nothing of the trail is on this page, nor on a job's, so that looking is no event."""
        seen = Q(kind=TrailJob.VERIFICATION) | Q(asked_by=str(request.user.pk))
        jobs = TrailJob.objects.filter(seen).order_by("-asked_at")[:_SHOWN]
        return self.show(request, "change_list", title=_("Exports and verifications"), jobs=list(jobs))

    @looking
    def job_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
        """Show how far a job is, and what came of it."""
        job = self._find(request, job_id)
        is_late = job.is_open and not job.attempts and clock.now() - job.asked_at > _SOON
        return self.show(
            request,
            "job",
            title=_("Export") if job.kind == TrailJob.EXPORT else _("Verification"),
            job=job,
            is_late=is_late,
            gone_at=job.asked_at + KEPT_FOR,
            may_export=self.may_export(request),
        )

    @asking
    def verify_view(self, request: HttpRequest) -> HttpResponseBase:
        """Have the whole log recomputed."""
        return self._asked(TrailJob.VERIFICATION, request)

    @taking
    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Give the events that the filters let through, or have a worker write them into a file where they are many."""
        form, wanted = FiltersForm(request.POST), request.POST.get("format", "")
        if not form.is_valid() or wanted not in CONTENT_TYPES:
            return self._back(request, _("Nothing was exported: what was asked for can't be meant."))
        now = clock.now()
        asked = form.filters()
        # What comes in meanwhile, this export's own event first of all, is not in it.
        until = min(asked.until or now, now)
        filters = dataclasses.replace(asked, until=until)
        job_id = entropy.uuid7(now) if is_beyond(filters, MOST_AT_ONCE) else None
        if job_id and conf.export_folder() is None:
            return self._back(request, _("Nothing was exported: these are more than 10,000 events. Ask for fewer."))
        if job_id and has_too_many(str(request.user.pk)):
            return self._back(request, _("Nothing was exported: take your other exports first, or wait for a day."))
        tell(
            request,
            Action.AUDIT_EXPORTED,
            subject=asked.subject,
            resource=f"TrailJob/{job_id}" if job_id else "",
            detail={"format": wanted, "filters": list(asked.used())},
        )
        if job_id:
            kept = {**form.as_parameters(), "until": until.isoformat()}
            return self._asked(TrailJob.EXPORT, request, id=job_id, format=wanted, filters=kept)
        name = f"audit-trail-{now:%Y%m%dT%H%M%SZ}.{ENDINGS[wanted]}"
        return StreamingHttpResponse(
            _streamed(filters, wanted),
            content_type=CONTENT_TYPES[wanted],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @taking
    def download_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
        """Give the file of an export to whoever asked for it, once."""
        job, folder = self._find(request, job_id), conf.export_folder()
        tell(request, Action.AUDIT_VIEWED, resource=f"TrailJob/{job.pk}", detail={"page": "export", "filters": []})
        try:
            if folder is None or job.kind != TrailJob.EXPORT:
                raise LookupError
            file = take_file(job, folder=folder)
        except LookupError:
            messages.error(request, _("There is no file to take: it was taken before, or is gone."))
            return HttpResponseRedirect(reverse(_JOB, args=[job.pk]))
        name = f"audit-trail-{job.asked_at:%Y%m%dT%H%M%SZ}.{ENDINGS[job.format]}"
        return FileResponse(file, as_attachment=True, filename=name, content_type=CONTENT_TYPES[job.format])

    def _find(self, request: HttpRequest, job_id: uuid.UUID) -> TrailJob:
        """Return the job, if it is this person's to see."""
        job = TrailJob.objects.filter(pk=job_id).first()
        if job is None:
            raise Http404
        if job.kind == TrailJob.EXPORT and job.asked_by != str(request.user.pk):
            self.refuse(request, job_id)
        return job

    def _asked(self, kind: str, request: HttpRequest, **asked: Any) -> HttpResponseBase:
        job = ask(kind, asked_by=str(request.user.pk), now=clock.now(), **asked)
        return HttpResponseRedirect(reverse(_JOB, args=[job.pk]))

    def _back(self, request: HttpRequest, why: Any) -> HttpResponseBase:
        messages.error(request, why)
        return HttpResponseRedirect(reverse(_TRAIL))


def _streamed(filters: Filters, form: str) -> Iterator[bytes]:
    """Yield the lines; where the trail can't be read on, the last one says so."""
    try:
        for _count, lines in export(filters, form, site=site()):
            yield lines
    except RowUnreadable:
        yield torn(form, "row_unreadable")
    except AuditUnavailable as error:
        yield torn(form, error.code)
