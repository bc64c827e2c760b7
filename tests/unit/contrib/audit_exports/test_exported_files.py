"""The page that verifies an exported file: permissions, events, and the result in words."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.audit.search import EventFilters
from django_phi_oidc.contrib.audit_exports import exported_files
from django_phi_oidc.contrib.audit_exports.event_export import export_events
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.audit_log import NOW, PEM, events, sealed
from tests.support.audit_tampering import LEAF, sql, without_triggers
from tests.support.officers import sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
LOG, PAGE = "/admin/phi_oidc_audit/auditevent/", "/admin/phi_oidc_audit_exports/trailjob/file/"
PERIOD = {"since": "2026-11-01T00:00", "until": "2026-11-24T16:30"}
SUBJECT = "0c0c0c0c-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def _an_hour_later(settings: Any) -> Iterator[None]:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    ticks = count()
    with clock.override_clock(lambda: NOW + timedelta(hours=1, milliseconds=next(ticks))):
        yield


@pytest.fixture
def officer() -> Client:
    return sign_in_officer("view_auditevent")


@pytest.fixture
def verify(officer: Client) -> Callable[..., str]:
    """Return a function that verifies a file with filters, and returns the page without line breaks."""

    def post(content: bytes, **filters: str) -> str:
        answer = officer.post(PAGE, {**(filters or PERIOD), "file": SimpleUploadedFile("march.jsonl", content)})
        assert answer.status_code == 200
        return " ".join(answer.content.decode().split())

    return post


def export(**filters: Any) -> bytes:
    return b"".join(lines for _, lines in export_events(EventFilters(**filters), "jsonl", hostname="here"))


def views() -> list[tuple[str, dict[str, Any]]]:
    return [(row.subject, json.loads(row.detail)) for row in AuditEvent.objects.filter(action="audit.viewed")]


def test_page_needs_the_view_permission_and_a_refusal_is_recorded(officer: Client) -> None:
    sealed(1)
    for client in (sign_in_officer(), sign_in_officer("export_auditevent")):
        for answer in (client.get(PAGE), client.post(PAGE, {"file": SimpleUploadedFile("a.jsonl", b"x\n")})):
            assert answer.status_code == 403
    refused = AuditEvent.objects.filter(action="access.denied")
    assert [(row.reason, row.detail) for row in refused] == [("permission_missing", '{"page":"trailjob/file"}')] * 4
    assert views() == []
    assert officer.get(PAGE).status_code == 200
    assert sign_in_officer("view_auditevent", is_staff=False).get(PAGE).status_code == 302
    assert officer.put(PAGE).status_code == 405


def test_file_as_exported_is_verified_after_an_event(verify: Callable[..., str]) -> None:
    sealed(3)
    page = verify(export())
    assert "The file is verified" in page
    assert "All 3 events are what was sealed, under the signed checkpoint at 3 events." in page
    assert "No event that matches the filters is missing." in page
    assert views() == [("", {"filters": ["since", "until"], "page": "file"})]


def test_altered_byte_or_missing_line_is_shown(verify: Callable[..., str]) -> None:
    ids = sealed(3)
    content = export()
    assert "The file is verified" in verify(content)
    altered = verify(content.replace(b"birthdate", b"birthdatf", 1))
    assert "The file is not what was exported" in altered
    assert "The event in line 1 is not what was sealed." in altered
    assert "The file is verified" not in altered
    missing = verify(content.split(b"\n", 1)[1])
    assert f"The event {ids[0]} of 2026-11-24 16:05:09 UTC is in the log, but not in the file." in missing


def test_filters_come_from_the_list_and_are_shown_in_words(officer: Client, verify: Callable[..., str]) -> None:
    sealed(3, subject=SUBJECT, outcome="success")
    link = officer.get(LOG, {**PERIOD, "subject": SUBJECT, "purpose": "TREAT"}).content.decode()
    url = link.partition(f'href="{PAGE}?')[2].partition('"')[0].replace("&amp;", "&")
    page = officer.get(f"{PAGE}?{url}")
    assert page.context["kept"] == {
        "since": "2026-11-01T00:00:00",
        "until": "2026-11-24T16:30:00",
        "subject": SUBJECT,
        "purpose": "TREAT",
    }
    assert page.context["filters"] == [
        ("From (UTC)", "2026-11-01 00:00:00"),
        ("Before (UTC)", "2026-11-24 16:30:00"),
        ("Person", f"About {SUBJECT}"),
        ("Purpose", "Treatment"),
    ]
    rest = {"action": "claim.revealed", "outcome": "success", "actor": "7", "search": ""}
    assert [name for name, _ in officer.get(PAGE, rest).context["filters"]] == ["Person", "Outcome", "Action"]
    content = export(subject=SUBJECT, until=NOW + timedelta(minutes=20))
    assert "The file is verified" in verify(content, subject=SUBJECT)
    assert views()[-1] == (SUBJECT, {"filters": ["subject"], "page": "file"})


def test_invalid_filters_and_missing_file_verify_nothing(officer: Client) -> None:
    sealed(1)
    content = {"file": SimpleUploadedFile("a.jsonl", export())}
    assert officer.post(PAGE, {**content, "since": "yesterday"}).status_code == 302
    answer = officer.post(PAGE, PERIOD)
    assert "Nothing was verified." in answer.content.decode()
    assert views() == []


def test_large_file_is_refused_with_the_command(verify: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(1)
    content = export()
    assert "The file is verified" in verify(content)
    monkeypatch.setattr(exported_files, "MAX_FILE_BYTES", len(content) - 1)
    assert "Verify it with “phi_oidc audit check-export”." in verify(content)
    assert len(views()) == 1


def test_waiting_later_and_other_events_are_named(verify: Callable[..., str]) -> None:
    sealed(2)
    events(1, at=NOW + timedelta(minutes=1))
    page = verify(export())
    assert "The file is not verified yet" in page
    assert "1 event waits to be sealed. Verify the file again in a minute." in page
    assert "2 events of the file do not match the filters below" in verify(export(), subject="subject 0")
    first = export().split(b"\n")[0] + b"\n"
    assert "The log has newer events than the file." in verify(first, since=PERIOD["since"])


def test_damaged_log_and_missing_keys_verify_nothing(verify: Callable[..., str], settings: Any) -> None:
    ids = sealed(2)
    content = export()
    assert "The file is verified" in verify(content)
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE event_id = %s", ids[1])
    page = verify(content)
    assert "the log itself is damaged" in page
    assert "The file is verified" not in page
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": None})
    page = verify(content)
    assert "this server has no keys of the log" in page
    assert "The file is verified" not in page


def test_nothing_is_shown_without_the_audit_database(officer: Client, audit_database_away: Callable[[], Any]) -> None:
    sealed(1)
    data = {**PERIOD, "file": SimpleUploadedFile("a.jsonl", export())}
    with audit_database_away():
        assert officer.post(PAGE, data).status_code == 503
    assert views() == []


@pytest.mark.parametrize("content", [b"x\n", None], ids=["another file", "only the newest event"])
def test_page_stops_reading_the_log_after_many_faults(
    content: bytes | None, verify: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_files, "MAX_FAULTS", 5)
    sealed(2_100)
    content = content or export(until=NOW + timedelta(minutes=50)).splitlines(keepends=True)[-1]
    with CaptureQueriesContext(connections[AUDIT_ALIAS]) as queries:
        page = verify(content, until="2026-11-24T16:30")
    assert "5 faults were found. Do not rely on this file." in page
    batches = [query["sql"] for query in queries if " LIMIT 1001" in query["sql"]]
    assert len(batches) == 1, "one batch, not the whole log"
