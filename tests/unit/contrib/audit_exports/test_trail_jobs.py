"""Exports and verifications in the admin: permissions, events, and responses."""

import csv
import io
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.audit_exports import trail_jobs
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.audit_exports.tasks import work_trail_jobs
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.audit_log import NOW, PEM, events, sealed
from tests.support.audit_tampering import EVENT, sql, without_triggers
from tests.support.officers import sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
TRAIL, JOBS = "/admin/phi_oidc_audit/auditevent/", "/admin/phi_oidc_audit_exports/trailjob/"
EXPORT, VERIFY = f"{JOBS}export/", f"{JOBS}verify/"
VIEW, BOTH = ("view_auditevent",), ("view_auditevent", "export_auditevent")
Officer = Callable[..., Client]


@pytest.fixture(autouse=True)
def _an_hour_later(settings: Any) -> Iterator[None]:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    ticks = count()
    with clock.override_clock(lambda: NOW + timedelta(hours=1, milliseconds=next(ticks))):
        yield


@pytest.fixture
def folder(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for exports; exports of more than two events are made by a worker."""
    exports = tmp_path / "exports"
    exports.mkdir(mode=0o700)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT_EXPORTS=exports, KEYS={"audit_signing": PEM})
    monkeypatch.setattr(trail_jobs, "MAX_STREAMED_EVENTS", 2)
    return exports


@pytest.fixture
def officer() -> Officer:
    """Return a function that signs in a staff member with these permissions."""
    return sign_in_officer


def recorded(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action))


def text_of(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def test_export_needs_both_permissions_and_a_refusal_is_recorded(officer: Officer) -> None:
    sealed(2)
    for client in (officer(*VIEW), officer("export_auditevent"), officer()):
        before = len(recorded("access.denied"))
        assert client.post(EXPORT, {"format": "csv"}).status_code == 403
        assert len(recorded("access.denied")) == before + 1
        refused = recorded("access.denied")[-1]
        assert (refused.actor, refused.reason, refused.resource) == (
            str(client.user.pk),  # type: ignore[attr-defined]
            "permission_missing",
            "TrailJob",
        )
    assert recorded("audit.exported") == []
    assert officer(*BOTH).post(EXPORT, {"format": "csv"}).status_code == 200
    outside = officer(*BOTH, is_staff=False).post(EXPORT, {"format": "csv"})
    assert (outside.status_code, len(recorded("audit.exported"))) == (302, 1)


def test_buttons_are_shown_to_permitted_users(officer: Officer) -> None:
    sealed(1)
    assert EXPORT in officer(*BOTH).get(TRAIL).content.decode()
    page = officer(*VIEW).get(TRAIL).content.decode()
    assert (EXPORT in page, VERIFY in page) == (False, True)
    checkpoints = "/admin/phi_oidc_audit/auditcheckpoint/"
    assert VERIFY not in officer("view_auditcheckpoint").get(checkpoints).content.decode()
    assert VERIFY in officer("view_auditcheckpoint", *VIEW).get(checkpoints).content.decode()


def test_export_is_recorded_before_its_first_byte_and_excludes_its_own_event(officer: Officer) -> None:
    ids = sealed(3, subject=str(uuid.UUID(int=7)))
    events(1, subject="another")
    client = officer(*BOTH)
    response = client.post(EXPORT, {"format": "jsonl", "subject": str(uuid.UUID(int=7)), "action": ""})
    (event,) = recorded("audit.exported")
    assert (event.actor, event.subject) == (str(client.user.pk), str(uuid.UUID(int=7)))  # type: ignore[attr-defined]
    assert json.loads(event.detail) == {"format": "jsonl", "filters": ["subject"]}
    assert [json.loads(line)["id"] for line in text_of(response).splitlines()] == [str(id_) for id_ in ids]
    assert response["Content-Disposition"] == 'attachment; filename="audit-trail-20261124T170509Z.jsonl"'
    assert "no-store" in response["Cache-Control"]
    everything = text_of(client.post(EXPORT, {"format": "csv"}))
    assert "audit.exported" in everything
    assert len(list(csv.DictReader(io.StringIO(everything)))) == 5


def test_formulas_in_a_csv_export_are_escaped(officer: Officer) -> None:
    sealed(1, reason='=cmd|"/c calc"!A1')
    (row,) = csv.DictReader(io.StringIO(text_of(officer(*BOTH).post(EXPORT, {"format": "csv"}))))
    assert row["reason"] == '\'=cmd|"/c calc"!A1'


@pytest.mark.parametrize("data", [{"format": "xml"}, {"format": "csv", "action": "no"}, {}])
def test_export_with_invalid_input_is_refused(data: dict[str, str], officer: Officer) -> None:
    response = officer(*BOTH).post(EXPORT, data, follow=True)
    assert response.redirect_chain == [(TRAIL, 302)]
    assert "Nothing was exported" in response.content.decode()
    assert recorded("audit.exported") == []


def test_get_requests_start_no_job(officer: Officer) -> None:
    client = officer(*BOTH)
    assert [client.get(url).status_code for url in (EXPORT, VERIFY)] == [405, 405]
    forged = Client(enforce_csrf_checks=True)
    forged.force_login(client.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")  # type: ignore[attr-defined]
    assert [forged.post(url, {"format": "csv"}).status_code for url in (EXPORT, VERIFY)] == [403, 403]
    assert (recorded("audit.exported"), TrailJob.objects.count()) == ([], 0)


def test_nothing_is_exported_during_an_outage_of_the_audit_database(
    officer: Officer,
    audit_database_away: Any,
) -> None:
    sealed(2)
    client = officer(*BOTH)
    with audit_database_away():
        assert client.post(EXPORT, {"format": "csv"}).status_code == 503
    assert client.post(EXPORT, {"format": "csv"}).status_code == 200


def test_interrupted_export_says_so_in_its_last_line(officer: Officer) -> None:
    ids = sealed(2)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET detail = 'no json' WHERE id = %s", ids[1])
    lines = text_of(officer(*BOTH).post(EXPORT, {"format": "jsonl"})).splitlines()
    assert lines == ['{"incomplete":"row_unreadable"}']


def test_large_export_is_made_by_a_worker_and_downloaded_once_by_its_owner(officer: Officer, folder: Path) -> None:
    ids = sealed(3)
    client, other = officer(*BOTH), officer(*BOTH)
    accepted = client.post(EXPORT, {"format": "jsonl", "action": "claim.revealed"})
    job = TrailJob.objects.get()
    page, download = f"{JOBS}{job.pk}/change/", f"{JOBS}{job.pk}/download/"
    assert (accepted.status_code, accepted["Location"]) == (302, page)
    (event,) = recorded("audit.exported")
    assert (event.resource, json.loads(event.detail)["filters"]) == (f"TrailJob/{job.pk}", ["action"])
    assert "waiting for a worker" in client.get(page).content.decode()
    assert "There is no file: it was" in client.post(download, follow=True).content.decode()
    work_trail_jobs()
    assert "3 events." in client.get(page).content.decode()
    for url, send in ((page, other.get), (download, other.post)):
        assert send(url).status_code == 403
        assert recorded("access.denied")[-1].resource == f"TrailJob/{job.pk}"
    assert str(job.pk) not in other.get(JOBS).content.decode()
    assert str(job.pk) in client.get(JOBS).content.decode()
    downloaded = client.post(download)
    view_event = recorded("audit.viewed")[-1]
    assert (view_event.resource, json.loads(view_event.detail)["page"]) == (f"TrailJob/{job.pk}", "export")
    assert [json.loads(line)["id"] for line in text_of(downloaded).splitlines()] == [str(id_) for id_ in ids]
    assert "There is no file: it was" in client.post(download, follow=True).content.decode()
    assert list(folder.iterdir()) == []


def test_file_is_kept_if_the_download_cannot_be_recorded(
    officer: Officer,
    folder: Path,
    audit_database_away: Any,
) -> None:
    sealed(3)
    client = officer(*BOTH)
    client.post(EXPORT, {"format": "fhir"})
    work_trail_jobs()
    download = f"{JOBS}{TrailJob.objects.get().pk}/download/"
    with audit_database_away():
        assert client.post(download).status_code == 503
    assert len(text_of(client.post(download)).splitlines()) == 3


def test_large_export_without_a_folder_is_refused(officer: Officer, folder: Path, settings: Any) -> None:
    sealed(3)
    client = officer(*BOTH)
    options = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(options, AUDIT_EXPORTS=None)
    assert "more than" in client.post(EXPORT, {"format": "csv"}, follow=True).content.decode()
    assert (recorded("audit.exported"), TrailJob.objects.count()) == ([], 0)
    settings.PHI_OIDC = options
    assert client.post(EXPORT, {"format": "csv"}).status_code == 302
    assert TrailJob.objects.count() == 1


def test_sixth_waiting_export_of_one_user_is_refused(officer: Officer, folder: Path) -> None:
    sealed(3)
    client = officer(*BOTH)
    for _ in range(5):
        client.post(EXPORT, {"format": "csv"})
    assert "download your other exports first" in client.post(EXPORT, {"format": "csv"}, follow=True).content.decode()
    assert (TrailJob.objects.count(), len(recorded("audit.exported"))) == (5, 5)
    assert officer(*BOTH).post(EXPORT, {"format": "csv"})["Location"].startswith(JOBS)
    work_trail_jobs()
    done = TrailJob.objects.get(state="done")
    client.post(f"{JOBS}{done.pk}/download/").close()
    assert client.post(EXPORT, {"format": "csv"})["Location"].startswith(JOBS)


def test_verification_is_requested_by_users_who_may_view_events(officer: Officer, folder: Path) -> None:
    ids = sealed(3)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET reason = 'another' WHERE id = %s", ids[1])
    assert officer("view_auditcheckpoint").post(VERIFY).status_code == 403
    assert recorded("access.denied")[-1].reason == "permission_missing"
    client = officer(*VIEW)
    page = client.post(VERIFY)["Location"]
    assert client.post(VERIFY)["Location"] == page
    work_trail_jobs()
    html = officer(*VIEW).get(page).content.decode()
    assert "event_altered" in html
    assert str(ids[1]) in html
    assert recorded("audit.verified")[0].actor == str(client.user.pk)  # type: ignore[attr-defined]
    assert "1 finding (event_altered)." in client.get(TRAIL).content.decode()
    assert officer("view_auditcheckpoint").get(page).status_code == 403


def test_verification_has_no_file_and_an_unknown_job_has_no_page(officer: Officer, folder: Path) -> None:
    client = officer(*BOTH)
    page = client.post(VERIFY)["Location"]
    assert "There is no file" in client.post(page.replace("change", "download"), follow=True).content.decode()
    assert client.get(f"{JOBS}{uuid.UUID(int=1)}/change/").status_code == 404


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": "running", "done": 5, "total": 20}, '<progress id="trail-progress" max="20" value="5">'),
        ({"state": "running", "done": 5}, "5 events so far"),
        ({"state": "waiting", "asked_at": NOW}, "No worker has started it yet"),
        ({"state": "waiting", "attempts": 1, "fault": "audit_unavailable"}, "An attempt failed and will be repeated"),
        ({"state": "failed", "attempts": 3}, "The worker was stopped three times."),
        ({"state": "failed", "fault": "row_unreadable"}, "<code>row_unreadable</code>"),
    ],
)
def test_page_of_a_job_shows_its_state(fields: dict[str, Any], text: str, officer: Officer) -> None:
    job = TrailJob.objects.create(id=uuid.UUID(int=1), kind="verification", **{"asked_at": clock.now(), **fields})
    page = officer(*VIEW).get(f"{JOBS}{job.pk}/change/").content.decode()
    assert text in page
    assert ("trail.js" in page) == job.is_open


def test_export_about_a_person_is_an_event_about_each_subject(officer: Officer, folder: Path) -> None:
    subjects = [str(uuid.UUID(int=number)) for number in (7, 8)]
    sealed(1, subject=subjects[1])
    filters = {"person": ",".join(["538", *subjects]), "routine": "show", "format": "jsonl"}
    lines = b"".join(officer(*BOTH).post(EXPORT, filters).streaming_content).splitlines()  # type: ignore[attr-defined]
    assert [json.loads(line)["subject"] for line in lines] == [subjects[1]]
    exports = recorded("audit.exported")
    # Events of the same instant have no order.
    assert sorted((event.subject, json.loads(event.detail)["filters"]) for event in exports) == [
        (subject, ["person"]) for subject in subjects
    ]


def test_jobs_show_the_name_of_the_user_who_requested_them(officer: Officer, folder: Path) -> None:
    client = officer(*VIEW, first_name="Otto", last_name="Meier")
    page = client.post(VERIFY)["Location"]
    link = f'<a href="/admin/django_phi_oidc/person/{client.user.pk}/">Otto Meier</a>'  # type: ignore[attr-defined]
    assert link in officer(*VIEW).get(JOBS).content.decode()
    assert link in officer(*VIEW).get(page).content.decode()
