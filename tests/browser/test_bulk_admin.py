"""Invite people from a CSV file, and end all sessions of a provider, in Chromium."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.officer_admin import session_end_admin, session_end_jobs
from django_phi_oidc.contrib.officer_admin.tasks import run_session_end_jobs
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.tasks import sweep_revocations
from tests.browser.pages import fits_window, open_list_above
from tests.support.accessibility import faults
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ScriptedOP, SignedIn, answering

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
NAMES = ("Amina Okafor", "Jonas Svensson", "Lena Berg", "Marie-Claire Dubois", "Yusuf Demir")


@pytest.fixture
def fifty_people(settings: Any, tmp_path: Path) -> Path:
    """Return a file of 50 people as Excel writes it, two rows with a problem among them."""
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation", "label": "Clinic login"}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": default})
    people = []
    for number in range(50):
        first, last = NAMES[number % len(NAMES)].rsplit(" ", 1)
        fields = {"first_name": first, "last_name": last}
        people.append(get_user_model().objects.create(username=f"person-{number}", **fields))
    lines = [f"{user.username};{user.get_full_name()};Tulegatan {user.pk}" for user in people]
    path = tmp_path / "people.csv"
    path.write_text("\ufeffuser;name;street\r\n" + "\r\n".join([*lines, "person-7;x;y", "nobody;x;y"]), "utf-8")
    return path


def test_fifty_people_are_invited_from_a_file(superuser_page: Any, fifty_people: Path, tmp_path: Path) -> None:
    page = superuser_page
    page.goto("/admin/phi_oidc_invitations/activationcode/")
    page.click("text=Import CSV file")
    assert faults(page, within="#content", picture="csv-upload") == []
    page.set_input_files("input[type=file]", fifty_people)
    page.click("text=Show preview")
    page.get_by_text("50 people will be invited").wait_for()
    assert "2 rows have a problem" in page.inner_text("#content")
    assert faults(page, within="#content", picture="csv-preview") == []
    page.click("input[value='Invite 50 people']")
    page.get_by_text("50 people were invited").wait_for()
    assert faults(page, within="#content", picture="csv-codes") == []
    with page.expect_download() as started:
        page.click("input[value='Download the codes (CSV)']")
    started.value.save_as(tmp_path / "codes.csv")
    with (tmp_path / "codes.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert len({row["code"] for row in rows}) == ActivationCode.objects.unused().count() == 50
    assert rows[0]["name"] == "Amina Okafor"


def test_refused_file_is_explained(superuser_page: Any, fifty_people: Path, tmp_path: Path) -> None:
    page = superuser_page
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("name\nAmina\n")
    page.goto("/admin/phi_oidc_invitations/activationcode/import/")
    page.set_input_files("input[type=file]", wrong)
    page.click("text=Show preview")
    page.get_by_text("Line 1: there is no column user").wait_for()
    assert faults(page, within="#content", picture="csv-refused") == []


@pytest.fixture
def allowed_console_text(request: Any) -> str:
    """Return the text of the browser about the refused file."""
    return "Failed to load resource" if "refused_file" in request.node.name else "/favicon.ico"


def test_sessions_of_a_group_are_ended_with_progress(
    superuser_page: Any, op: ScriptedOP, sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_end_jobs, "BATCH_SIZE", 3)
    monkeypatch.setattr(session_end_admin, "INLINE_SECONDS", 0)
    op.answer = answering(503)
    group = Group.objects.create(name="Ward 7")
    for _ in range(8):
        sign_in().user.groups.add(group)  # type: ignore[attr-defined]
    page = superuser_page
    page.goto("/admin/phi_oidc_officer_admin/sessionendjob/add/")
    page.select_option("select[name=group]", label="Ward 7")
    page.click("text=Show number of sessions")
    page.get_by_text("8 live sessions").wait_for()
    assert faults(page, within="#content", picture="end-add") == []
    page.check("input[name=reason][value=incident]")
    page.fill("input[name=people]", "8")
    page.click("input[value='End 8 sessions']")
    page.get_by_text("Running: 3 of 8 sessions were ended.").wait_for()
    assert faults(page, within="#content", picture="end-running") == []
    # The page changes without being loaded again.
    page.evaluate("window.isSamePage = true")
    run_session_end_jobs()
    page.get_by_text("Done: 8 sessions were ended.").wait_for()
    op.answer = answering(200)
    session_end_jobs.PendingRevocation.objects.update(due_at=OIDCSession.objects.latest("ended_at").ended_at)
    sweep_revocations()
    page.get_by_text("16 / 16").wait_for()
    assert page.evaluate("window.isSamePage")
    assert faults(page, within="#content", picture="end-done") == []
    open_list_above(page, "Requests to end sessions")
    page.locator("#result_list tbody tr").wait_for()
    assert fits_window(page)
    assert faults(page, within="#content", picture="end-list") == []
