"""The page of a person for each group, in Chromium under the content security policy of the example project."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.sessions.models import OIDCSession
from tests.browser.pages import Browse, read_message, submit
from tests.support.accessibility import faults
from tests.support.person_page_fixtures import CANARY, _at_noon, held, in_an_emergency  # noqa: F401 -- a fixture
from tests.unit.contrib.officer_admin.test_person_views import DOES, EVERY, FIND, invited, url

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
OpenAs = Callable[[str], Any]


@pytest.fixture
def allowed_console_text() -> str:
    """Return the text of the console messages about refused requests, which these tests send."""
    return "responded with a status of 4"


@pytest.fixture
def open_as(browse: Browse, patient: Any, officer: Callable[[str], Any]) -> OpenAs:
    """Return a function that opens the page of the patient as an officer of a group, by the link on the user's page."""

    def open_page(group: str) -> Any:
        page = browse(officer(group))
        # Themes put the link behind a button of a narrow window.
        narrow = page.viewport_size
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(reverse("admin:auth_user_change", args=[patient.user.pk]))
        page.get_by_role("link", name="Identity and access").click()
        page.set_viewport_size(narrow)
        page.wait_for_url(f"**{url(patient)}")
        return page

    return open_page


def assert_accessible(page: Any, name: str) -> None:
    """Check #content in each width and color scheme. The rest of the page is Django's."""
    assert faults(page, within="#content", picture=name) == []


@pytest.mark.parametrize("group", sorted(EVERY))
def test_page_offers_a_group_only_its_permitted_actions(group: str, open_as: OpenAs, patient: Any) -> None:
    held(patient), in_an_emergency(patient), invited(patient)
    page = open_as(group)
    assert_accessible(page, group.split(maxsplit=1)[0])
    offered = {
        href.split("/")[-2] for href in page.eval_on_selector_all(".person-acts a", "links => links.map(a => a.href)")
    }
    # The help desk invites only accounts without a link.
    linked = {"invite"} if group == "Help desk" else set()
    assert offered == {name for name, (groups, _) in DOES.items() if group in groups} - linked
    for act in sorted(offered):
        page.goto(url(patient, act))
        assert_accessible(page, f"{group.split(maxsplit=1)[0]}-{act}")
    forbidden = sorted(DOES.keys() - offered)
    for act in forbidden:
        assert page.goto(url(patient, act)).status == 403
    denied = AuditEvent.objects.filter(action="access.denied", resource=f"user/{patient.user.pk}")
    assert denied.count() == len(forbidden)


def test_privacy_officer_reveals_a_claim_and_cannot_erase_claims_under_a_hold(open_as: OpenAs, patient: Any) -> None:
    page = open_as("Privacy officer")
    assert CANARY not in page.content()
    page.click("text=Reveal claims")
    page.get_by_label("address").check()
    page.get_by_label("Purpose").select_option("HOPERAT")
    page.get_by_label("a complaint is investigated").check()
    submit(page)
    page.wait_for_selector("text=Shown only once")
    assert CANARY in page.inner_text("pre")
    assert CANARY not in page.url
    assert_accessible(page, "shown")
    event = AuditEvent.objects.get(action="claim.revealed")
    assert (event.purpose, event.reason) == ("HOPERAT", "complaint")
    page.click("text=Done")
    assert CANARY not in page.content()
    assert "Personal data disclosed" in page.inner_text("section:has(#timeline)")

    page.click("text=Place a legal hold")
    page.get_by_label("Case reference").fill("Docket 26-117")
    submit(page, url(patient))
    assert "Docket 26-117" in page.inner_text("section:has(#holds)")
    page.click("text=Erase all claims")
    submit(page)
    page.wait_for_selector(".errornote")
    assert StoredClaim.objects.filter(subject=patient.subject).exists()
    assert_accessible(page, "refused")

    page.click("text=Cancel")
    page.click("text=Release legal holds")
    submit(page, url(patient))
    assert LegalHold.objects.get().released_at is not None
    page.click("text=Erase all claims")
    submit(page, url(patient))
    assert not StoredClaim.objects.filter(subject=patient.subject).exists()


def test_help_desk_creates_a_code_and_ends_a_session_by_keyboard(open_as: OpenAs, patient: Any) -> None:
    page = open_as("Help desk")
    newcomer = get_user_model()._default_manager.create_user(username="newcomer")
    page.goto(url(SimpleNamespace(user=newcomer)))
    page.click("text=Make an activation code")
    page.focus("input[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Shown only once")
    code = page.inner_text("pre >> nth=0")
    assert len(code) > 8
    page.click("text=Done")
    assert code not in page.content()
    page.goto(url(patient))
    page.focus("text=End sessions now")
    page.keyboard.press("Enter")
    page.wait_for_url("**/end/")
    page.focus("input[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{url(patient)}")
    read_message(page, "1 session was ended.")
    assert OIDCSession.objects.get(user=patient.user).ended_at is not None


def test_person_is_found_from_the_index_of_the_admin(open_as: OpenAs, patient: Any) -> None:
    patient.user.first_name, patient.user.last_name = "Amina", "Keller"
    patient.user.save()
    get_user_model()._default_manager.create_user(username="keller-2", last_name="Keller")
    page = open_as("Help desk")
    page.goto("/admin/")
    page.get_by_label("Find a person").fill("keller")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{FIND}?q=keller")
    assert_accessible(page, "find-a-person")
    page.click("a:text-is('Amina Keller')")
    page.wait_for_url(f"**{url(patient)}")
    assert page.get_by_role("heading", name="Amina Keller", exact=True).is_visible()
    page.get_by_label("Find a person").fill(str(patient.subject.uuid))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{url(patient)}")
