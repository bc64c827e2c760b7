"""Exports and verifications as somebody at a browser has them, under the example's content security policy."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.events import Action, parse_event
from django_phi_oidc.audit_exports import admin
from django_phi_oidc.audit_exports.models import TrailJob
from django_phi_oidc.audit_exports.tasks import work_trail_jobs
from tests.browser.test_audit_admin import browse, expected, is_as_wide_as_the_screen, officer, site  # noqa: F401 -- fixtures
from tests.support.accessibility import faults
from tests.support.audit_log import NOW, PEM, events, sealed
from tests.support.phi_oidc_settings import override_phi_oidc

JOBS = "/admin/django_phi_oidc/trailjob/"
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def folder(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    exports = tmp_path / "exports"
    exports.mkdir(mode=0o700)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"exports": exports}, KEYS={"audit_signing": PEM})
    monkeypatch.setattr(admin, "MAX_STREAMED_EVENTS", 20)
    return exports


def take(page: Any, button: str, path: Path) -> list[str]:
    with page.expect_download() as download:
        page.click(button)
    download.value.save_as(path)
    return path.read_text().splitlines()


@pytest.mark.browser
def test_officer_takes_what_they_have_found_away(officer: Any, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    sealed(12, subject=str(uuid.UUID(int=7)))
    sealed(25)
    officer.goto("/admin/django_phi_oidc/auditevent/")
    officer.get_by_label("Subject").fill(str(uuid.UUID(int=7)))
    officer.get_by_label("Action").fill("claim.revealed")
    officer.keyboard.press("Enter")
    officer.wait_for_url("**subject=0**")
    address = officer.get_by_label("Address of this view").input_value()
    officer.goto(address)
    assert officer.locator(".trail tbody tr").count() == 12
    officer.get_by_label("Export these events as").select_option("jsonl")
    found = [parse_event(line).event for line in take(officer, "input[value=Export]", tmp_path / "few")]
    assert {each.subject for each in found} == {str(uuid.UUID(int=7))}
    assert len(found) == 12

    officer.click("text=Clear all filters")
    officer.get_by_label("Export these events as").select_option("fhir")
    officer.click(".trail-act input[value=Export]")
    officer.wait_for_url(f"**{JOBS}**")
    assert "waiting for a worker" in officer.inner_text("#trail-job-state")
    work_trail_jobs()
    # Nobody loads the page again: its script does.
    officer.get_by_role("button", name="Download").wait_for()
    assert "done" in officer.inner_text("#trail-job-state")
    many = take(officer, "input[value=Download]", tmp_path / "many")
    assert len(many) >= 37
    officer.click("input[value=Download]")
    assert "There is no file: it was" in officer.inner_text(".messagelist")

    officer.goto("/admin/django_phi_oidc/auditevent/")
    officer.click("input[value='Verify now']")
    work_trail_jobs()
    officer.get_by_text("Waiting to be sealed").wait_for()
    assert is_as_wide_as_the_screen(officer)
    officer.click("nav >> text=Exports and verifications")
    assert officer.locator(".trail tbody tr").count() == 2


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
def test_pages_in_every_look_are_accessible_and_fit(officer: Any) -> None:  # noqa: F811
    from django.contrib.auth import get_user_model  # noqa: PLC0415 -- inside of the fixture's event loop

    sealed(3)
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 3, "findings": 0}, at=NOW)
    me = str(get_user_model().objects.get().pk)
    paths = {"list": JOBS, "trail": "/admin/django_phi_oidc/auditevent/?outcome=success"}
    for number, (name, given) in enumerate(STATES.items(), 1):
        job = TrailJob.objects.create(id=uuid.UUID(int=number), asked_by=me, asked_at=NOW, **given)
        paths[name] = f"{JOBS}{job.pk}/change/"
    for name, path in paths.items():
        officer.goto(path)
        assert faults(officer, within="#content", picture=name) == [], name
