"""The page that verifies an exported file: its form, the filters of the export in words, and the
result.
"""

import logging
from typing import Any, BinaryIO
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..._internal import clock
from ..._internal.admin_theme import ThemedFileInput
from ...audit.admin.event_list_filters import describe_filters
from ...audit.errors import CheckpointInvalid, LogDamaged
from ...audit.events import Action, NewEvent
from ...audit.filters import EventFiltersForm
from ...audit.log.file_verification import FileVerification, verify_exported_file
from ...audit.log.signing_keys import get_public_keys
from ...audit.recorder import record_many
from ...audit.request_context import Actor
from ...audit.search import EventFilters, RowUnreadable
from ...errors import KeyMissing
from ...subjects.people import find_people

logger = logging.getLogger("django_phi_oidc.admin")
MAX_FILE_BYTES = 8 * 1024 * 1024
"""About 15,000 events, which take seconds. The command has no limit."""
MAX_FAULTS = 1_000
_LOG_URL_NAME = "admin:phi_oidc_audit_auditevent_changelist"


class ExportedFileForm(forms.Form):
    """The file. The filters of the export are separate fields of the page."""

    file = forms.FileField(
        label=gettext_lazy("File"),
        help_text=gettext_lazy(
            "An export in the format “JSON lines as sealed”. Other formats cannot be verified."
        ),
        widget=ThemedFileInput(attrs={"accept": ".jsonl"}),
    )

    def clean_file(self) -> BinaryIO:
        file = self.cleaned_data["file"]
        if file.size > MAX_FILE_BYTES:
            text = _(
                "The file is too large for this page. Verify it with “phi_oidc audit check-export”."
            )
            raise ValidationError(text)
        # The iterator of Django's files also ends lines at other characters than a line feed.
        content: BinaryIO = file.file
        return content


def verify_uploaded_file(
    request: HttpRequest, file: BinaryIO, filters: EventFilters
) -> tuple[FileVerification | None, str]:
    """Return the result, after an event for each subject of the filters; or None, and why nothing
    can be verified.

    Raises: AuditUnavailable.
    """
    origin = Actor.from_request(request).origin
    now = clock.now()
    detail = {"page": "file", "filters": list(filters.list_used_names())}
    subjects = filters.list_subjects() or ("",)
    events = []
    for subject in subjects:
        event = NewEvent(
            action=Action.AUDIT_VIEWED, origin=origin, now=now, subject=subject, detail=detail
        )
        events.append(event)
    record_many(events)
    try:
        return verify_exported_file(
            file, filters, keys=get_public_keys(), now=now, max_faults=MAX_FAULTS
        ), ""
    except (CheckpointInvalid, LogDamaged, RowUnreadable):
        return None, _(
            "The file cannot be verified, because the log itself is "
            "damaged. Select “Verify now” in the audit log."
        )
    except KeyMissing as error:
        logger.error("A file cannot be verified: %s", error)  # noqa: TRY400 -- a missing setting needs no traceback
        return None, _(
            "The file cannot be verified, because this server has no keys of the log. Ask the "
            "operators of this site."
        )


def build_file_context(form: EventFiltersForm) -> dict[str, Any]:
    """Return the filters of the export for the template. Requires: form.is_valid()."""
    parameters = {}
    for key, value in form.build_query_parameters().items():
        if key != "routine":
            parameters[key] = value
    filters = form.get_filters()
    people = find_people(
        actors=[filters.actor, filters.on_behalf_of, filters.person.partition(",")[0]],
        subjects=filters.list_subjects(),
    )
    return {
        "kept": parameters,
        "filters": list(describe_filters(filters, people)),
        "log_url": f"{reverse(_LOG_URL_NAME)}?{urlencode(parameters)}",
    }
