"""The manual about CSV files and bulk ends in the admin: the names and limits in it are the real ones."""

import re
from typing import Any

import pytest

from django_phi_oidc.contrib.officer_admin import session_end_admin, session_end_jobs
from django_phi_oidc.contrib.subject_links.csv_import import admin, rows
from django_phi_oidc.sessions import tasks
from tests.docs.test_docs import page
from tests.support.officers import create_account, sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.unit.contrib.subject_links.test_csv_import import (
    INVITE,
    INVITER,
    LINK,
    LINKER,
    confirm,
    text_of,
    upload,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ADD = "/admin/phi_oidc_officer_admin/sessionendjob/add/"


@pytest.fixture(autouse=True)
def _invitations(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation"}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": default})


def section(name: str, heading: str) -> str:
    """Return the section of a how-to page, with single spaces."""
    text = page(f"how-to/{name}.md").partition(f"# {heading}\n")[2]
    return " ".join(re.split(r"\n#+ ", text)[0].split())


def names(text: str) -> set[str]:
    """Return what the text quotes of a page."""
    return set(re.findall(r"(?<![*\w])\*([^*]+)\*(?!\*)", text)) - {"CSV UTF-8", "Add"}


def test_documented_steps_invite_people_from_a_file() -> None:
    text = section("activation-codes", "From a CSV file")
    client = sign_in_officer(INVITER, "view_activationcode")
    for number in range(48):
        create_account(f"person-{number}")
    content = "user;name\n" + "\n".join(f"person-{number};x" for number in range(48))
    preview = upload(client, INVITE, content)
    pages = [client.get(INVITE.removesuffix("import/")), client.get(INVITE), preview, confirm(client, INVITE, preview)]
    shown = " ".join(answer.content.decode() for answer in pages)
    assert names(text) == {name for name in names(text) if name in shown}
    assert len(names(text)) == 5
    assert f"up to {rows.MAX_ROWS:,} people" in text
    assert f"{rows.MAX_BYTES // 1_000_000} MB" in text
    assert ("one hour" in text, admin.LIFETIME.total_seconds()) == (True, 3600)


def test_documented_link_from_a_file_is_offered_where_the_page_says() -> None:
    text = section("link-subjects", "From a CSV file")
    client = sign_in_officer(LINKER, "view_pairwisesubject")
    answer = client.get(LINK.removesuffix("import/"))
    assert names(text) == {"Import CSV file"}
    assert "Import CSV file" in answer.content.decode()
    assert all(f"`{column}`" in text for column, _meaning in admin.LINKS.columns)
    assert f"up to {rows.MAX_ROWS:,} people" in text


def test_documented_names_and_limits_of_a_bulk_end_are_the_real_ones() -> None:
    text = section("end-sessions", "All sessions of a provider, a group or a person")
    client = sign_in_officer("view_oidcsession", "end_many_oidcsessions")
    assert {"Show number of sessions", "Requests to end sessions", "Continue"} <= names(text)
    assert "Show number of sessions" in client.get(ADD).content.decode()
    assert "Requests to end sessions" in text_of(client.get(ADD))
    assert f"for up to {tasks.INLINE_SECONDS:.0f} seconds" in text
    assert f"within {session_end_admin.LATE_AFTER.total_seconds():.0f} seconds" in text
    assert f"{session_end_jobs.BATCH_SIZE:,} in each transaction" in text
    assert f"after {session_end_jobs.RETRY_DELAY.total_seconds():.0f} seconds" in text
    assert ("five attempts" in text, session_end_jobs.MAX_FAILURES) == (True, 5)
    assert ("after a minute" in text, session_end_jobs.LEASE_DURATION.total_seconds()) == (True, 60)
