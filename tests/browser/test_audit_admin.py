"""The audit log in the admin, in Chromium under the content security policy of the example project."""

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log.bundle import verify_inclusion_bundle
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from tests.browser.pages import fits_window, open_list_above
from tests.support.accessibility import faults
from tests.support.admin_rows import get_list_url
from tests.support.audit_log import KEY, NOW, events, sealed
from tests.support.officers import create_account

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SUBJECT = str(uuid.UUID(int=7))


@pytest.mark.browser
def test_event_is_found_by_filters_and_its_proof_is_downloaded(superuser_page: Any, tmp_path: Path) -> None:
    sealed(150, origin=Origin(actor="8"), subject=SUBJECT, reason="<script>document.title = 'gone'</script>")
    sealed(5, at=NOW + timedelta(hours=1))
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 155, "findings": 0}, at=NOW + timedelta(hours=2))
    superuser_page.goto("/admin/")
    superuser_page.click("#content a:text-is('Audit events')")
    assert "155 events, no findings." in superuser_page.inner_text(".trail-verified")
    assert fits_window(superuser_page)

    superuser_page.get_by_label("Search", exact=True).fill("8")
    superuser_page.keyboard.press("Enter")
    superuser_page.wait_for_url("**search=8**")
    superuser_page.get_by_label("From (UTC)").fill("2026-11-24T16:00")
    superuser_page.click("button:text-is('Apply')")
    superuser_page.wait_for_url("**since=2026-11-24T16**")
    assert superuser_page.locator(".event-table tbody tr").count() == 100
    assert superuser_page.get_by_label("From (UTC)").input_value() == "2026-11-24T16:00"
    superuser_page.click("text=Older")
    superuser_page.wait_for_url("**before=**")
    assert superuser_page.locator(".event-table tbody tr").count() == 50
    assert superuser_page.get_by_label("Search", exact=True).input_value() == "8"
    assert fits_window(superuser_page)

    superuser_page.click(".event-table tbody tr:last-child th a")
    assert "<script>" in superuser_page.inner_text(".trail-fields")
    assert fits_window(superuser_page)
    with superuser_page.expect_download() as download:
        superuser_page.click("text=Download the proof")
    download.value.save_as(tmp_path / "proof.json")
    proven = verify_inclusion_bundle((tmp_path / "proof.json").read_text(), [KEY.public_key()])
    assert download.value.suggested_filename == f"proof-{proven.event['id']}.json"
    assert (proven.leaf_index, proven.event["actor"]) == (0, "8")

    # Without the event of the superuser, which the clock of the machine dates after the sealing.
    superuser_page.click("text=150 events")
    assert superuser_page.inner_text("pre").startswith("phi-oidc-audit\n150\n")
    open_list_above(superuser_page, "Checkpoints of the audit log", "Audit checkpoints")
    superuser_page.wait_for_url("**/auditcheckpoint/")
    assert superuser_page.locator(".trail tbody tr").count() == 2
    assert fits_window(superuser_page)
    pages = [json.loads(event.detail)["page"] for event in AuditEvent.objects.filter(action="audit.viewed")]
    assert pages == ["events", "events", "events", "events", "event", "proof", "checkpoint", "checkpoints"]


@pytest.mark.browser
@pytest.mark.node
def test_list_comes_first_fits_and_is_accessible(superuser_page: Any) -> None:
    person = create_account("amina", first_name="Amina", last_name="Keller-Bundschuh")
    origin = Origin(actor=str(person.pk), client_ip="2001:db8:85a3::8a2e:370:7334")
    events(3, subject=SUBJECT, resource="Patient/0b5e2a4c-7a86-4d6f-9f77-3d6a6f3f5a3e", origin=origin)
    events(
        2, origin=Origin(actor=f"os:root@portal-1.clinic.example;as={person.pk}"), outcome="failure", reason="r" * 30
    )
    events(4, action=Action.TOKEN_REVOKED, detail=None)
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 155, "findings": 0})
    for name, query in (("events", ""), ("events-of-a-person", f"?person={person.pk},{SUBJECT}")):
        superuser_page.set_viewport_size({"width": 1280, "height": 900})
        superuser_page.goto(f"/admin/phi_oidc_audit/auditevent/{query}")
        first = superuser_page.locator(".event-table tbody tr").first.bounding_box()
        assert first["y"] < 300, "in the first third of the window"
        table = ".trail-scroll"
        assert superuser_page.eval_on_selector(table, "region => region.scrollWidth <= region.clientWidth")
        assert faults(superuser_page, within="#content", picture=name) == []
    superuser_page.click("text=By Amina Keller-Bundschuh")
    superuser_page.wait_for_url("**actor=**")
    superuser_page.goto("/admin/phi_oidc_audit/auditevent/")
    assert "routine events on this page are hidden" in superuser_page.inner_text("#changelist")
    superuser_page.click("text=Show routine events")
    superuser_page.wait_for_url("**routine=show")
    assert "Token revoked" in superuser_page.inner_text(".event-table")


@pytest.mark.browser
@pytest.mark.node
def test_lists_of_checkpoints_and_jobs_fit_and_are_accessible(superuser_page: Any) -> None:
    sealed(3)
    fields: dict[str, Any] = {"asked_at": NOW, "asked_by": "1"}
    done = {"tree_size": 3, "waiting": 0, "findings": 1, "kinds": ["event_altered"], "lines": ["event_altered 1"]}
    job = TrailJob.objects.create(id=uuid7(NOW), kind="verification", state="done", result=done, **fields)
    checkpoints, jobs = get_list_url("auditcheckpoint"), get_list_url("trailjob")
    for name, path in (
        ("checkpoints", checkpoints),
        ("checkpoint", f"{checkpoints}{AuditCheckpoint.objects.get().tree_size}/change/"),
        ("jobs", jobs),
        ("job", f"{jobs}{job.pk}/change/"),
        ("file", f"{jobs}file/?since=2026-03-01T00:00&action=claim.revealed"),
    ):
        superuser_page.set_viewport_size({"width": 1280, "height": 900})
        assert superuser_page.goto(path).status == 200, name
        regions = "regions => regions.every(region => region.scrollWidth <= region.clientWidth)"
        assert superuser_page.eval_on_selector_all("div.trail-scroll", regions), name
        assert faults(superuser_page, within="#content", picture=name) == []
