"""End all sessions of a provider, a group, a person or before a time in the admin, and show the
progress.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext, gettext_lazy, ngettext

from ... import conf
from ..._internal import clock
from ..._internal.admin_columns import create_time_column, format_utc
from ..._internal.periodic_task import LOCK_WAIT_SECONDS
from ..._internal.sql import limit_lock_waits
from ...audit.admin_base import ReadOnlyAdmin
from ...audit.descriptions import get_reason_phrase
from ...audit.event_people import People, Person
from ...audit.request_context import Actor
from ...oidc.remedies import get_remedy
from ...sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from ...sessions.session_selection import SessionSelection, count_people
from ...sessions.tasks import INLINE_SECONDS, revoke_after_commit
from ...subjects.people import find_people
from ...subjects.person_label import get_label
from ..common.people_admin import can_view_person_pages
from . import session_end_jobs
from .models import SessionEndJob

LATE_AFTER = timedelta(seconds=40)
"""Longer than the time between two runs of the workers' tasks."""
MAX_INLINE_REVOCATIONS = 100
_PERMISSIONS = (
    "django_phi_oidc.view_oidcsession",
    "phi_oidc_officer_admin.end_many_oidcsessions",
)
_TEMPLATES = "admin/phi_oidc_officer_admin/sessionendjob"
BULK_END_REASONS = (
    ("incident", gettext_lazy("an incident is looked into")),
    ("access_changed", gettext_lazy("access rights were changed")),
    ("provider_changed", gettext_lazy("the provider was changed or moved")),
    ("maintenance", gettext_lazy("the portal is maintained")),
)
"""Why an officer ends many sessions: the `reason` of the event. A fixed list, because the audit log
keeps typed text.
"""


class SessionSelectionForm(forms.Form):
    """Asks whose sessions to end. The criteria are combined."""

    provider = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        required=False,
        choices=lambda: [
            ("", gettext("Any provider")),
            *((name, provider.label or name) for name, provider in conf.providers().items()),
        ],
    )
    group = forms.ModelChoiceField(
        label=gettext_lazy("Members of the group"),
        required=False,
        queryset=Group.objects.order_by("name"),
        empty_label=gettext_lazy("Any group, or none"),
    )
    user = forms.ModelChoiceField(
        label=gettext_lazy("Person (ID of the user)"),
        required=False,
        queryset=get_user_model()._base_manager.all(),
    )

    before = forms.DateTimeField(
        label=gettext_lazy("Started before"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
    )
    include_own = forms.BooleanField(label=gettext_lazy("Also end my own session"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        user_field: Any = self.fields["user"]
        relation: Any = OIDCSession._meta.get_field("user").remote_field
        user_field.widget = ForeignKeyRawIdWidget(relation, admin.site)
        if not hasattr(get_user_model(), "groups"):
            del self.fields["group"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        has_criterion = any(data.get(name) for name in ("provider", "group", "user", "before"))
        if not self.errors and not has_criterion:
            raise forms.ValidationError(gettext("Choose a provider, a group, a person or a time."))
        return data

    def get_selection(self, own_session: str) -> SessionSelection:
        """own_session: the primary key of the session of the request; empty without one."""
        data = self.cleaned_data
        group = data.get("group")
        user = data["user"]
        before = data["before"]
        if data["include_own"]:
            own_session = ""
        return SessionSelection(
            provider=data["provider"],
            group=group.pk if group else None,
            user=str(user.pk) if user else "",
            before=before.isoformat() if before else "",
            except_session=own_session,
        )


class BulkEndForm(forms.Form):
    """Asks why the sessions end, and for the number of people, which prevents a slip."""

    reason = forms.ChoiceField(
        label=gettext_lazy("Reason"), choices=BULK_END_REASONS, widget=forms.RadioSelect
    )
    people = forms.IntegerField(label=gettext_lazy("Number of people"), min_value=1)

    def __init__(self, *args: Any, people_count: int, **kwargs: Any) -> None:
        """people_count: of those whose sessions will end."""
        super().__init__(*args, **kwargs)
        self.people_count = people_count

    def clean_people(self) -> int:
        people: int = self.cleaned_data["people"]
        if people != self.people_count:
            text = ngettext(
                "The sessions of %(count)d person will end. Enter this number.",
                "The sessions of %(count)d people will end. Enter this number.",
                self.people_count,
            )
            raise forms.ValidationError(text % {"count": self.people_count})
        return people


class SessionEndJobAdmin(ReadOnlyAdmin):
    """The requests to end many sessions. Adding one ends them."""

    list_display = ("requested", "criteria", "requester", "state", "ended_sessions")
    list_filter = ("state",)
    ordering = ("-id",)
    actions = None

    requested = create_time_column("requested_at", gettext_lazy("Requested (UTC)"))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Require the permission to view sessions, and the one to end those of many people."""
        return not self._find_missing_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def _find_missing_permission(
        self, request: HttpRequest, page: str = "", action: str = ""
    ) -> str:
        return next((name for name in _PERMISSIONS if not request.user.has_perm(name)), "")

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.continue_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_continue"
        return [path("<path:object_id>/continue/", view, name=name), *super().get_urls()]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Add the names of the people and groups on the page, by two queries."""
        changelist = super().get_changelist_instance(request)
        names = _find_names(changelist.result_list)
        for job in changelist.result_list:
            job.names = names
        return changelist

    @admin.display(description=gettext_lazy("requested by"))
    def requester(self, job: Any) -> str:
        return str(job.names.people.find_actor(job.requested_by) or job.requested_by)

    @admin.display(description=gettext_lazy("sessions of"))
    def criteria(self, job: Any) -> str:
        return ", ".join(_describe_selection(job, job.names))

    @admin.display(description=gettext_lazy("ended"))
    def ended_sessions(self, job: SessionEndJob) -> str:
        return gettext("%(done)d of %(total)d") % {
            "done": job.done,
            "total": max(job.done, job.total),
        }

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Ask whose sessions to end, show how many people are signed out, and start the job after
        the confirmation.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied

        if request.method == "POST":
            data = request.POST
        else:
            data = request.GET

        form = SessionSelectionForm(
            data if any(name in data for name in SessionSelectionForm.base_fields) else None
        )
        context: dict[str, Any] = {
            "form": form,
            "title": gettext("End sessions"),
            "media": self.media + form.media,
        }
        if form.is_bound and form.is_valid():
            origin = Actor.from_request(request).origin
            selection = form.get_selection(own_session=origin.session)
            sessions = selection.filter(OIDCSession.objects.live())
            people_count = count_people(sessions)
            bulk_form = BulkEndForm(request.POST or None, people_count=people_count)
            if bulk_form.is_valid():
                job = session_end_jobs.start_bulk_end(
                    selection,
                    reason=bulk_form.cleaned_data["reason"],
                    origin=origin,
                    now=clock.now(),
                )
                return self._run_and_redirect(job)
            context |= {
                "bulk_form": bulk_form,
                "count": sessions.count(),
                "people_count": people_count,
                "has_own": bool(origin.session) and sessions.filter(pk=origin.session).exists(),
                "person": form.cleaned_data["user"] and get_label(form.cleaned_data["user"]),
            }
        return self._render(request, "add", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the progress."""
        job = self._get_job(request, object_id)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        tokens = session_end_jobs.get_token_progress(job)
        now = clock.now()
        names = _find_names([job])

        token_faults = []
        for fault, count in tokens.faults:
            token_faults.append((fault, count, *_describe_fault(fault)))

        others_ended = 0
        if job.state == SessionEndJob.State.DONE:
            others_ended = max(job.total - job.done, 0)

        context = {
            "title": gettext("End sessions"),
            "job": job,
            "shown_total": max(job.done, job.total),
            "criteria": _describe_selection(job, names),
            "person": self._find_linked_person(request, job, names),
            "requester": names.people.find_actor(job.requested_by) or job.requested_by,
            "tokens": tokens,
            "token_faults": token_faults,
            "is_changing": job.is_open or tokens.waiting > 0,
            "is_late": job.is_open
            and now - max(job.requested_at, job.lease_until or job.requested_at) > LATE_AFTER,
            "others_ended": others_ended,
        }
        return self._render(request, "job", context)

    def continue_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End further sessions in this request, when no worker does."""
        job = self._get_job(request, object_id)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        session_end_jobs.resume_job(job.pk)
        return self._run_and_redirect(job)

    def _get_job(self, request: HttpRequest, object_id: str) -> SessionEndJob:
        if not self.has_view_permission(request):
            raise PermissionDenied
        job: SessionEndJob | None = self.get_object(request, object_id)
        if job is None:
            raise Http404
        return job

    def _run_and_redirect(self, job: SessionEndJob) -> HttpResponse:
        """End sessions for up to 2 s, and revoke their tokens if they are few. A worker does the
        rest.
        """
        with limit_lock_waits(LOCK_WAIT_SECONDS):
            session_end_jobs.run_job(job.pk, clock=clock.now, budget_seconds=INLINE_SECONDS)
        pending = PendingRevocation.objects.filter(end_job=job.pk, status=RevocationStatus.PENDING)
        revocation_ids = pending.order_by("-token_type_hint", "pk").values_list("pk", flat=True)
        pks = list(revocation_ids[: MAX_INLINE_REVOCATIONS + 1])
        if len(pks) <= MAX_INLINE_REVOCATIONS:
            revoke_after_commit(pks)
        return HttpResponseRedirect(session_end_jobs.build_job_url(job))

    def _find_linked_person(
        self, request: HttpRequest, job: SessionEndJob, names: "_Names"
    ) -> Person | None:
        """Return the person of the selection, if the viewer may open the page of the person."""
        user_pk = SessionSelection(**job.selection).user
        if not user_pk or not can_view_person_pages(request.user):
            return None
        return names.people.find_actor(user_pk)

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        frame = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"{_TEMPLATES}/{template}.html", frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """The names that the jobs of a page refer to."""

    people: People
    groups: Mapping[int, str]


def _find_names(jobs: Sequence[SessionEndJob]) -> _Names:
    actors = set()
    groups = set()
    for job in jobs:
        selection = SessionSelection(**job.selection)
        actors.add(job.requested_by)
        actors.add(selection.user)
        if selection.group is not None:
            groups.add(selection.group)
    if groups:
        names = dict(Group.objects.filter(pk__in=groups).values_list("pk", "name"))
    else:
        names = {}

    return _Names(people=find_people(actors=actors), groups=names)


def _describe_selection(job: SessionEndJob, names: _Names) -> list[str]:
    """Return a text for each criterion."""
    selection = SessionSelection(**job.selection)
    texts = []
    if selection.provider:
        declaration = conf.providers().get(selection.provider)
        label = (declaration and declaration.label) or selection.provider
        texts.append(gettext("provider %(provider)s") % {"provider": label})
    if selection.group is not None:
        name = names.groups.get(selection.group, selection.group)
        texts.append(gettext("group %(group)s") % {"group": name})
    if selection.user:
        person = names.people.find_actor(selection.user) or selection.user
        texts.append(gettext("person %(person)s") % {"person": person})
    if selection.before:
        time = format_utc(datetime.fromisoformat(selection.before))
        texts.append(gettext("started before %(time)s UTC") % {"time": time})
    return texts


def _describe_fault(fault: str) -> tuple[str, str]:
    """Return the fault in words, and what an operator can do."""
    code, _, provider_error = fault.partition(" ")
    return get_reason_phrase(code), gettext(get_remedy(code, provider_error))
