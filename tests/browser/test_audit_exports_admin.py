"""Exports and verifications in the admin, in Chromium under the content security policy of the example project."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.events import Action, parse_event
from django_phi_oidc.contrib.audit_exports import trail_jobs
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.audit_exports.tasks import work_trail_jobs
from tests.browser.pages import fits_window, open_list_above, read_message
from tests.support.accessibility import faults
from tests.support.audit_log import NOW, PEM, events, sealed
from tests.support.phi_oidc_settings import override_phi_oidc

JOBS = "/admin/phi_oidc_audit_exports/trailjob/"
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def folder(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    exports = tmp_path / "exports"
    exports.mkdir(mode=0o700)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT_EXPORTS=exports, KEYS={"audit_signing": PEM})
    monkeypatch.setattr(trail_jobs, "MAX_STREAMED_EVENTS", 20)
    return exports


def download(page: Any, button: str, path: Path) -> list[str]:
    with page.expect_download() as started:
        page.click(button)
    started.value.save_as(path)
    return path.read_text().splitlines()


@pytest.mark.browser
def test_filtered_events_are_exported_directly_or_by_a_worker(
    superuser_page: Any, folder: Path, tmp_path: Path
) -> None:
    sealed(12, subject=str(uuid.UUID(int=7)))
    sealed(25)
    superuser_page.goto(f"/admin/phi_oidc_audit/auditevent/?subject={uuid.UUID(int=7)}")
    superuser_page.click("#changelist-filter a:text-is('Personal data disclosed')")
    superuser_page.wait_for_url("**subject=0**action=claim.revealed")
    assert superuser_page.locator(".event-table tbody tr").count() == 12
    superuser_page.get_by_label("Export format").select_option("jsonl")
    found = [parse_event(line).event for line in download(superuser_page, "input[value=Export]", tmp_path / "few")]
    assert {event.subject for event in found} == {str(uuid.UUID(int=7))}
    assert len(found) == 12

    superuser_page.click("text=Clear all filters")
    superuser_page.get_by_label("Export format").select_option("fhir")
    superuser_page.click("input[value=Export]")
    superuser_page.wait_for_url(f"**{JOBS}**")
    assert "waiting for a worker" in superuser_page.inner_text("#trail-job-state")
    work_trail_jobs()
    # The script of the page reloads it.
    superuser_page.get_by_role("button", name="Download").wait_for()
    assert "done" in superuser_page.inner_text("#trail-job-state")
    many = download(superuser_page, "input[value=Download]", tmp_path / "many")
    assert len(many) >= 37
    superuser_page.click("input[value=Download]")
    read_message(superuser_page, "There is no file: it was")

    superuser_page.goto("/admin/phi_oidc_audit/auditevent/")
    superuser_page.click("button:text-is('Verify now')")
    work_trail_jobs()
    superuser_page.get_by_text("Waiting to be sealed").wait_for()
    assert fits_window(superuser_page)
    open_list_above(superuser_page, "Exports and verifications")
    superuser_page.locator(".trail tbody tr").first.wait_for()
    assert superuser_page.locator(".trail tbody tr").count() == 2


STATES: dict[str, dict[str, Any]] = {
    "waiting": {"kind": "export", "format": "csv"},
    "running": {"kind": "verification", "state": "running", "done": 150_000, "total": 400_000},
    "counting": {"kind": "export", "format": "csv", "state": "running", "done": 150_000},
    "failed": {"kind": "verification", "state": "failed", "fault": "row_unreadable"},
    "done": {"kind": "export", "format": "csv", "state": "done", "result": {"events": 150_000}},
    "found": {
        "kind": "verification",
        "state": "done",
        "result": {"tree_size": 4, "waiting": 1, "findings": 1, "kinds": ["event_altered"], "lines": ["line " * 40]},
    },
}


@pytest.mark.browser
@pytest.mark.node
def test_pages_are_accessible_and_fit_in_each_width_and_color_scheme(superuser_page: Any) -> None:
    from django.contrib.auth import get_user_model  # noqa: PLC0415 -- in the event loop of the fixture

    sealed(3)
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 3, "findings": 0}, at=NOW)
    me = str(get_user_model().objects.get().pk)
    paths = {"list": JOBS, "trail": "/admin/phi_oidc_audit/auditevent/?outcome=success"}
    for number, (name, fields) in enumerate(STATES.items(), 1):
        job = TrailJob.objects.create(id=uuid.UUID(int=number), asked_by=me, asked_at=NOW, **fields)
        paths[name] = f"{JOBS}{job.pk}/change/"
    for name, path in paths.items():
        superuser_page.goto(path)
        assert faults(superuser_page, within="#content", picture=name) == [], name
