"""The page on which the help desk looks up the reference of a refusal page.

It shows when and why the refusal happened and what to do, never the person that it concerns.
"""

import re
import uuid
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django import forms
from django.contrib.admin import AdminSite
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..._internal import clock
from ..._internal.randomness import get_id_time
from ...audit import search
from ...audit.actions import SHOWN_REFUSAL_ACTIONS
from ...audit.admin_base import record_access_denied, record_request_event, render_trail_unavailable
from ...audit.descriptions.event_sentences import describe_event
from ...audit.events import Action
from ...audit.log import archive_files
from ...audit.log.models import ArchiveFile
from ...audit.models import AuditEvent
from ...audit.refusals import RecordedRefusal
from ...audit.search import RowUnreadable
from ...errors import AuditUnavailable
from .help_desk_advice import get_advice

APP_LABEL = AuditEvent._meta.app_label
LOOKUP_PERMISSION = f"{APP_LABEL}.lookup_auditevent"
URL_NAME = "phi_oidc_reference"
MAX_TEXT_LENGTH = 2000
_TITLE = _("Look up a reference")
_MAX_CLOCK_DIFFERENCE = timedelta(minutes=2)
"""Between the servers of the portal."""
_DASHES = re.compile(r"[‐-―−_]")
_GAP = r"[\s-]*"
_UUID_PATTERN = re.compile(
    rf"(?<![0-9a-z])([0-9a-f]{{8}}{_GAP}[0-9a-f]{{4}}{_GAP}7[0-9a-f]{{3}})"
    rf"(?:{_GAP}([89ab][0-9a-f]{{3}}{_GAP}[0-9a-f]{{12}}))?(?![0-9a-z])"
)
"""A UUIDv7, or its first three groups: its time, to a microsecond. Fewer groups would be easy to
guess.
"""
_SPOKEN_PATTERN = re.compile(r"[0-9a-f\s-]+")
_REQUEST_ID_PATTERN = re.compile(r"(?<![\w-])(?=[A-Za-z0-9_-]*[G-Zg-z_])[A-Za-z0-9_-]{16}(?![\w-])")
"""As `get_request_id` creates it. A part of an incomplete UUID has no letter after f."""


class Reference(NamedTuple):
    """A reference that was entered: the first and the last event id that it may be. Both None: the
    id of a request.
    """

    first: uuid.UUID | None
    last: uuid.UUID | None


def find_reference(text: str) -> Reference | None:
    """Return the reference in a text, or None. Case, spaces, the kind of dashes and surrounding
    text do not matter.
    """
    lowered = _DASHES.sub("-", text).lower()
    if _SPOKEN_PATTERN.fullmatch(lowered):
        # Characters with spaces between them, as they are read out.
        lowered = re.sub(_GAP, "", lowered)
    match = _UUID_PATTERN.search(lowered)
    if match is None:
        if _REQUEST_ID_PATTERN.search(text):
            return Reference(None, None)
        return None
    first, rest = (re.sub(_GAP, "", part or "") for part in match.groups())
    return Reference(uuid.UUID(first + (rest or "0" * 16)), uuid.UUID(first + (rest or "f" * 16)))


class ReferenceForm(forms.Form):
    """Asks for the reference. `cleaned_data["reference"]` is a `Reference`."""

    reference = forms.CharField(
        label=_("Reference"),
        max_length=MAX_TEXT_LENGTH,
        help_text=_(
            "As on the caller’s page. The first three groups are enough, for example "
            "01890a5d-ac96-774b. Capitals, spaces and other text around it do not matter."
        ),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "size": 40}),
        error_messages={"required": _("Enter the reference.")},
    )

    def clean_reference(self) -> Reference:
        reference = find_reference(self.cleaned_data["reference"])
        if reference is None:
            raise ValidationError(
                _(
                    "This is not a reference. Compare it with the caller’s page: three groups of "
                    "8, 4 and 4 characters."
                )
            )
        return reference


def install_reference_page(site: AdminSite) -> None:
    """Add the page to the site, and to its list of this app's pages for those who may open it."""
    get_other_urls = site.get_urls
    get_other_apps = site.get_app_list

    def get_urls() -> list[Any]:
        view = site.admin_view(_create_reference_view(site))
        return [path(f"{APP_LABEL}/reference/", view, name=URL_NAME), *get_other_urls()]

    def get_app_list(request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps: list[Any] = get_other_apps(request, app_label)
        if app_label in (None, APP_LABEL) and request.user.has_perm(LOOKUP_PERMISSION):
            own = next((app for app in apps if app["app_label"] == APP_LABEL), None)
            if own is None:
                # A user with no permission for a model of this app.
                own = _build_app_entry(site)
                apps.append(own)
            own["models"].insert(0, _build_page_entry(site))
        return apps

    site.get_urls = get_urls  # type: ignore[method-assign]  # only on this site
    site.get_app_list = get_app_list  # type: ignore[method-assign]  # only on this site


def _build_app_entry(site: AdminSite) -> dict[str, Any]:
    url = reverse("admin:app_list", kwargs={"app_label": APP_LABEL}, current_app=site.name)
    names = {
        "name": AuditEvent._meta.app_config.verbose_name,
        "app_label": APP_LABEL,
        "app_url": url,
    }
    return {**names, "has_module_perms": True, "models": []}


def _build_page_entry(site: AdminSite) -> dict[str, Any]:
    """Return the entry in the form that the admin has for a model."""
    url = reverse(f"admin:{URL_NAME}", current_app=site.name)
    names = {
        "name": _TITLE,
        "object_name": "Reference",
        "admin_url": url,
        "add_url": None,
        "view_only": True,
    }
    return {**names, "model": AuditEvent, "perms": {"view": True}}


def _create_reference_view(site: AdminSite) -> Any:
    def reference_view(request: HttpRequest) -> HttpResponseBase:
        """Ask for a reference, and show what it refers to, after the event of the look-up."""
        try:
            if not request.user.has_perm(LOOKUP_PERMISSION):
                event_id = record_access_denied(request, AuditEvent._meta, operation="reference")
                raise RecordedRefusal(reference=str(event_id), permission=LOOKUP_PERMISSION)
            if request.method not in ("GET", "HEAD"):
                return HttpResponseNotAllowed(("GET", "HEAD"))
            form = ReferenceForm(request.GET if "reference" in request.GET else None)
            if form.is_valid():
                result = _look_up(request, form.cleaned_data["reference"])
            else:
                result = {}
        except AuditUnavailable:
            return render_trail_unavailable(request, site)
        context = {
            **site.each_context(request),
            "page_opts": AuditEvent._meta,
            "title": _TITLE,
            "form": form,
            **result,
        }
        return TemplateResponse(request, "admin/phi_oidc_officer_admin/reference.html", context)

    return reference_view


def _look_up(request: HttpRequest, reference: Reference) -> dict[str, Any]:
    """Return what the page shows. The look-up is an event, committed before. Raises:
    AuditUnavailable.
    """
    if reference.first is None or reference.last is None:
        return {"is_request_id": True}
    refusals = []
    fault = ""
    try:
        refusals = search.list_refusals(reference.first, reference.last)
    except RowUnreadable:
        fault = gettext(
            "The entry of this reference was altered. Pass the "
            "reference on to the security officer."
        )

    event = None
    if len(refusals) == 1:
        event = refusals[0]

    archives: list[ArchiveFile] = []
    if not refusals and not fault:
        archives = archive_files.list_archive_files(reference.first, reference.last)
        event = _read_archived_refusal(reference, archives)

    if event:
        resource = f"AuditEvent/{event.id}"
    else:
        resource = ""

    record_request_event(
        request,
        Action.AUDIT_VIEWED,
        subject=event.subject if event else "",
        resource=resource,
        detail={"page": "reference", "filters": []},
    )
    if event is None:
        issued_at = _find_plausible_time(reference.first, now=clock.now())
        names = {"is_ambiguous": bool(refusals), "is_missing": not refusals, "archives": archives}
        return {"fault": fault, "issued_at": issued_at, **names}
    may_view = request.user.has_perm(f"{APP_LABEL}.view_auditevent")
    return {
        "occurred_at": event.occurred_at,
        "sentence": describe_event(event),
        "advice": get_advice(event),
        "event_url": reverse(f"admin:{APP_LABEL}_auditevent_change", args=[event.id])
        if may_view
        else "",
    }


def _read_archived_refusal(reference: Reference, archives: list[ArchiveFile]) -> AuditEvent | None:
    """Return the event from an archive, if the reference is complete."""
    if reference.first is None or reference.first != reference.last:
        return None
    archived = archive_files.read_archived_event(reference.first, archives)
    if archived and archived.event.action in SHOWN_REFUSAL_ACTIONS:
        return archived.event
    return None


def _find_plausible_time(reference: uuid.UUID, *, now: datetime) -> datetime | None:
    """Return when a reference was issued, by its first 48 bits; None if it cannot be one of this
    portal.
    """
    issued_at = get_id_time(reference)
    if reference.version == 7 and issued_at <= now + _MAX_CLOCK_DIFFERENCE:
        return issued_at
    return None
