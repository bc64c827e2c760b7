"""The audit log in the admin, in Chromium under the content security policy of the example project."""

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log.bundle import verify_inclusion_bundle
from django_phi_oidc.audit.models import AuditEvent
from tests.browser.pages import fits_window
from tests.support.audit_log import KEY, NOW, events, sealed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SUBJECT = str(uuid.UUID(int=7))


@pytest.mark.browser
def test_event_is_found_by_filters_and_its_proof_is_downloaded(superuser_page: Any, tmp_path: Path) -> None:
    sealed(150, origin=Origin(actor="8"), subject=SUBJECT, reason="<script>document.title = 'gone'</script>")
    sealed(5, at=NOW + timedelta(hours=1))
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 155, "findings": 0}, at=NOW + timedelta(hours=2))
    superuser_page.goto("/admin/")
    superuser_page.click("#content a:text-is('Audit events')")
    assert "155" in superuser_page.inner_text(".trail-verified")
    assert fits_window(superuser_page)

    superuser_page.get_by_label("Actor").fill("8")
    superuser_page.get_by_label("From (UTC)").fill("2026-11-24T16:00")
    superuser_page.keyboard.press("Enter")
    superuser_page.wait_for_url("**actor=8**")
    assert superuser_page.locator(".trail tbody tr").count() == 100
    assert superuser_page.get_by_label("From (UTC)").input_value() == "2026-11-24T16:00"
    superuser_page.click("text=Older >> nth=0")
    superuser_page.wait_for_url("**before=**")
    assert superuser_page.locator(".trail tbody tr").count() == 50
    assert superuser_page.get_by_label("Actor").input_value() == "8"
    assert fits_window(superuser_page)

    superuser_page.click(".trail tbody tr:last-child a")
    assert "<script>" in superuser_page.inner_text(".trail-fields")
    assert fits_window(superuser_page)
    with superuser_page.expect_download() as download:
        superuser_page.click("text=Download the proof")
    download.value.save_as(tmp_path / "proof.json")
    proven = verify_inclusion_bundle((tmp_path / "proof.json").read_text(), [KEY.public_key()])
    assert download.value.suggested_filename == f"proof-{proven.event['id']}.json"
    assert (proven.leaf_index, proven.event["actor"]) == (0, "8")

    # With the event of the superuser.
    superuser_page.click("text=151 events")
    assert superuser_page.inner_text("pre").startswith("phi-oidc-audit\n151\n")
    superuser_page.click("nav >> text=Checkpoints of the audit log")
    assert superuser_page.locator(".trail tbody tr").count() == 2
    assert fits_window(superuser_page)
    pages = [json.loads(event.detail)["page"] for event in AuditEvent.objects.filter(action="audit.viewed")]
    assert pages == ["events", "events", "events", "event", "proof", "checkpoint", "checkpoints"]
