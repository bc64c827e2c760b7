"""The chart pages: access, authentication level, purpose, and audit events."""

import html
import re

import pytest
from portal.demo.browser import Browser, Page

from tests.integration.example_project.served_portal import PASSWORDS, Site

pytestmark = pytest.mark.sqlite
NOTES = "Allergic to penicillin."


@pytest.fixture
def browser() -> Browser:
    return Browser()


def get_user_pk(page: Page) -> str:
    match = re.search(r'data-user="(\d+)"', page.text)
    assert match, page.text
    return match[1]


def step_up(site: Site, browser: Browser, username: str, path: str) -> Page:
    """Open a page that needs a step-up, and complete the step-up."""
    login = browser.open(site.portal + path)
    assert login.url.startswith(site.provider), f"{login.status} {login.url}"
    return browser.submit(login, {"username": username, "password": PASSWORDS[username], "decision": "sign-in"})


def list_new_events(site: Site, before: int) -> list[tuple[str, str, str, str]]:
    return [event for event in site.list_events()[before:] if event[0].startswith(("access.", "session.renewed"))]


def test_own_chart_needs_a_step_up(site: Site, browser: Browser) -> None:
    amina = get_user_pk(site.sign_in(browser))
    before = len(site.list_events())
    page = step_up(site, browser, "amina", "/portal/chart/")
    assert (page.status, page.path) == (200, "/portal/chart/")
    assert NOTES in page.text
    assert get_user_pk(page) == amina
    assert "no-store" in page.headers["Cache-Control"]
    assert list_new_events(site, before) == [
        ("access.denied", "failure", "acr_insufficient", "PATRQT"),
        ("session.renewed", "success", "", ""),
        ("access.granted", "success", "", "PATRQT"),
    ]
    assert NOTES in browser.open(f"{site.portal}/portal/chart/").text, "a second step-up is not needed"


def test_chart_of_a_patient_is_shown_to_the_care_team(site: Site, browser: Browser) -> None:
    patient = Browser()
    jonas = get_user_pk(site.sign_in(patient, "jonas"))
    assert NOTES in patient.open(f"{site.portal}/portal/chart/").text, "his sign-in has a sufficient acr"
    lena = get_user_pk(site.sign_in(browser, "lena"))
    path, before = f"/portal/chart/{jonas}/", len(site.list_events())
    refused = browser.open(site.portal + path)
    assert refused.status == 403
    assert NOTES not in refused.text
    assert list_new_events(site, before) == [("access.denied", "failure", "permission_missing", "TREAT")]
    assert "You do not treat this patient." in browser.open(f"{site.portal}/portal/patients/").text
    with site.treating(lena, jonas):
        assert "You treat this patient." in browser.open(f"{site.portal}/portal/patients/").text
        before = len(site.list_events())
        opened = step_up(site, browser, "lena", path)
        assert (opened.status, opened.path) == (200, path)
        assert NOTES in opened.text
        assert list_new_events(site, before)[-1] == ("access.granted", "success", "", "TREAT")
    disclosures = patient.open(f"{site.portal}/portal/access/").text
    assert "your chart" in disclosures
    assert "Treatment" in disclosures


@pytest.mark.parametrize("path", ["/portal/patients/", "/portal/chart/{lena}/"])
def test_patients_and_their_charts_are_hidden_from_other_patients(site: Site, browser: Browser, path: str) -> None:
    lena = get_user_pk(site.sign_in(Browser(), "lena"))
    site.sign_in(browser)
    assert browser.open(f"{site.portal}/portal/").status == 200
    page = browser.open(site.portal + path.format(lena=lena))
    assert page.status == 403
    assert "Patients" not in re.sub("<title>.*</title>", "", page.text)
    assert NOTES not in page.text


def test_chart_is_not_shown_if_the_audit_database_fails(site: Site, browser: Browser) -> None:
    site.sign_in(browser)
    step_up(site, browser, "amina", "/portal/chart/")
    with site.failing_audit_log():
        refused = browser.open(f"{site.portal}/portal/chart/")
    assert refused.status == 503
    assert NOTES not in refused.text
    assert NOTES in browser.open(f"{site.portal}/portal/chart/").text


def test_emergency_access_shows_one_chart_with_a_banner_until_it_is_closed(site: Site, browser: Browser) -> None:
    patient = Browser()
    jonas = get_user_pk(site.sign_in(patient, "jonas"))
    assert NOTES in patient.open(f"{site.portal}/portal/chart/").text, "his sign-in has a sufficient acr"
    site.sign_in(browser, "lena")
    path = f"/portal/chart/{jonas}/"
    refused = browser.open(site.portal + path)
    link = re.search(r'href="(/oidc/emergency/[^"]+)"', refused.text)
    assert link
    form = browser.open(site.portal + html.unescape(link[1]))
    fields = {"permissions": "portal.view_chart", "purpose": "BTG", "minutes": "5", "reason": "An allergy?"}
    login = browser.submit(form, {"resource": f"Patient/{jonas}", **fields}, action="/oidc/emergency/")
    opened = browser.submit(login, {"username": "lena", "password": PASSWORDS["lena"], "decision": "sign-in"})
    assert (opened.status, opened.path) == (200, path)
    assert NOTES in opened.text
    assert "phi-oidc-emergency" in opened.text
    assert "phi-oidc-emergency" not in patient.open(f"{site.portal}/portal/").text
    assert ("access.granted", "success", "", "BTG") in site.list_events()
    disclosures = patient.open(f"{site.portal}/portal/access/").text
    assert '<span class="badge">Emergency</span>' in disclosures
    page = browser.open(f"{site.portal}/oidc/emergency/")
    # Other tests may leave her emergency accesses to other charts open.
    assert f"Patient/{jonas}<" in page.text
    page = browser.submit(page, {}, action="/close/")
    assert f"Patient/{jonas}<" not in page.text
    assert browser.open(site.portal + path).status == 403


def test_patient_is_not_offered_emergency_access(site: Site, browser: Browser) -> None:
    site.sign_in(browser)
    assert "/oidc/emergency/" not in browser.open(f"{site.portal}/portal/chart/1000000/").text
    assert browser.open(f"{site.portal}/oidc/emergency/").status == 403
