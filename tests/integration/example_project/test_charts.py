"""The pages of charts: who sees whose, how surely they signed in, what for, and what the trail says of it."""

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


def pk_of(page: Page) -> str:
    found = re.search(r'data-user="(\d+)"', page.text)
    assert found, page.text
    return found[1]


def confirm(site: Site, browser: Browser, username: str, path: str) -> Page:
    """Open what wants a stronger sign-in, and give it."""
    login = browser.open(site.portal + path)
    assert login.url.startswith(site.provider), f"{login.status} {login.url}"
    return browser.submit(login, {"username": username, "password": PASSWORDS[username], "decision": "sign-in"})


def told(site: Site, before: int) -> list[tuple[str, str, str, str]]:
    return [event for event in site.trail()[before:] if event[0].startswith(("access.", "session.renewed"))]


def test_own_chart_after_a_password_wants_more_and_then_is_opened(site: Site, browser: Browser) -> None:
    amina = pk_of(site.sign_in(browser))
    before = len(site.trail())
    page = confirm(site, browser, "amina", "/portal/chart/")
    assert (page.status, page.path) == (200, "/portal/chart/")
    assert NOTES in page.text
    assert pk_of(page) == amina
    assert "no-store" in page.headers["Cache-Control"]
    assert told(site, before) == [
        ("access.denied", "failure", "acr_insufficient", "PATRQT"),
        ("session.renewed", "success", "", ""),
        ("access.granted", "success", "", "PATRQT"),
    ]
    assert NOTES in browser.open(f"{site.portal}/portal/chart/").text, "and not asked for again"


def test_chart_of_a_patient_is_for_who_treats_them(site: Site, browser: Browser) -> None:
    patient = Browser()
    jonas = pk_of(site.sign_in(patient, "jonas"))
    assert NOTES in patient.open(f"{site.portal}/portal/chart/").text, "signed in strongly as it is"
    lena = pk_of(site.sign_in(browser, "lena"))
    path, before = f"/portal/chart/{jonas}/", len(site.trail())
    refused = browser.open(site.portal + path)
    assert refused.status == 403
    assert NOTES not in refused.text
    assert told(site, before) == [("access.denied", "failure", "permission_missing", "TREAT")]
    assert "You do not treat this patient." in browser.open(f"{site.portal}/portal/patients/").text
    with site.treating(lena, jonas):
        assert "You treat this patient." in browser.open(f"{site.portal}/portal/patients/").text
        before = len(site.trail())
        opened = confirm(site, browser, "lena", path)
        assert (opened.status, opened.path) == (200, path)
        assert NOTES in opened.text
        assert told(site, before)[-1] == ("access.granted", "success", "", "TREAT")
    looks = patient.open(f"{site.portal}/portal/access/").text
    assert "your chart" in looks
    assert "Treatment" in looks


@pytest.mark.parametrize("path", ["/portal/patients/", "/portal/chart/{lena}/"])
def test_patient_sees_neither_other_patients_nor_their_charts(site: Site, browser: Browser, path: str) -> None:
    lena = pk_of(site.sign_in(Browser(), "lena"))
    site.sign_in(browser)
    assert browser.open(f"{site.portal}/portal/").status == 200
    page = browser.open(site.portal + path.format(lena=lena))
    assert page.status == 403
    assert "Patients" not in re.sub("<title>.*</title>", "", page.text)
    assert NOTES not in page.text


def test_chart_with_the_audit_database_away_stays_closed(site: Site, browser: Browser) -> None:
    site.sign_in(browser)
    confirm(site, browser, "amina", "/portal/chart/")
    with site.trail_refusing():
        refused = browser.open(f"{site.portal}/portal/chart/")
    assert refused.status == 503
    assert NOTES not in refused.text
    assert NOTES in browser.open(f"{site.portal}/portal/chart/").text


def test_emergency_opens_one_chart_under_a_banner_until_it_is_closed(site: Site, browser: Browser) -> None:
    patient = Browser()
    jonas = pk_of(site.sign_in(patient, "jonas"))
    assert NOTES in patient.open(f"{site.portal}/portal/chart/").text, "signed in strongly as it is"
    site.sign_in(browser, "lena")
    path = f"/portal/chart/{jonas}/"
    refused = browser.open(site.portal + path)
    link = re.search(r'href="(/oidc/emergency/[^"]+)"', refused.text)
    assert link
    form = browser.open(site.portal + html.unescape(link[1]))
    given = {"permissions": "portal.view_chart", "purpose": "BTG", "minutes": "5", "reason": "An allergy?"}
    login = browser.submit(form, {"resource": f"Patient/{jonas}", **given}, action="/oidc/emergency/")
    opened = browser.submit(login, {"username": "lena", "password": PASSWORDS["lena"], "decision": "sign-in"})
    assert (opened.status, opened.path) == (200, path)
    assert NOTES in opened.text
    assert "phi-oidc-emergency" in opened.text
    assert "phi-oidc-emergency" not in patient.open(f"{site.portal}/portal/").text
    assert ("access.granted", "success", "", "BTG") in site.trail()
    looks = patient.open(f"{site.portal}/portal/access/").text
    assert '<span class="badge">Emergency</span>' in looks
    page = browser.open(f"{site.portal}/oidc/emergency/")
    # Other tests leave some of hers open, which end later.
    assert f"Patient/{jonas}<" in page.text
    page = browser.submit(page, {}, action="/close/")
    assert f"Patient/{jonas}<" not in page.text
    assert browser.open(site.portal + path).status == 403


def test_who_may_not_break_the_glass_is_offered_none(site: Site, browser: Browser) -> None:
    site.sign_in(browser)
    assert "/oidc/emergency/" not in browser.open(f"{site.portal}/portal/chart/1000000/").text
    assert browser.open(f"{site.portal}/oidc/emergency/").status == 403
