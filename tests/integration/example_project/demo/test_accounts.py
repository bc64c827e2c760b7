"""The accounts that the demo names: each may click what its introduction says."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from portal.demo.accounts import INTRODUCTIONS, format_guide
from portal.demo.browser import Browser

from django_phi_oidc.testing.mock_provider import demo_accounts, demo_staff
from tests.integration.example_project.served_portal import PASSWORDS, Site
from tests.support.external_tools import CHROMIUM, PARTS

ACCOUNTS = {account.username: account for account in (*demo_accounts(), *demo_staff())}
TITLES = {
    "amina": "My details",
    "jonas": "Chart",
    "lena": "You do not have access",
    "otto": "Emergency accesses: review queue",
    "sara": "Security alerts",
    "hugo": "OIDC sessions",
}


def test_guide_names_the_addresses_and_all_accounts_with_their_roles() -> None:
    guide = format_guide(portal="http://portal", provider="http://provider", accounts=ACCOUNTS.values())
    lines = [line.split() for line in guide.splitlines()]
    assert {"http://portal", "http://portal/admin/", "http://provider"} <= {words[-1] for words in lines if words}
    for name, account in ACCOUNTS.items():
        words = [name, "password", account.password, *INTRODUCTIONS[name].role.split()]
        assert lines.count(words) == 1
        assert INTRODUCTIONS[name].result in " ".join(guide.split())


def test_each_account_has_an_introduction_and_no_other_one_has() -> None:
    assert set(INTRODUCTIONS) == set(ACCOUNTS) == set(TITLES) == set(PASSWORDS)


@pytest.fixture(scope="module")
def chromium(site: Site) -> Iterator[Any]:
    """Return a Chromium; a patient has a chart, which clinicians find in their list."""
    patient = Browser()
    site.sign_in(patient)
    site.sign_in(patient, path="/portal/chart/")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PARTS["browser"]().where, args=[*CHROMIUM])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", INTRODUCTIONS)
def test_first_clicks_of_an_account_lead_to_its_page(name: str, site: Site, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto(site.portal)
    page.get_by_role("link", name="Sign in", exact=True).click()
    page.fill("#username", name)
    page.fill("#password", ACCOUNTS[name].password)
    page.click("button[value=sign-in]")
    for label in INTRODUCTIONS[name].clicks:
        page.get_by_role("link", name=label).or_(page.get_by_role("button", name=label)).first.click()
        page.wait_for_load_state()
    assert page.title().startswith(TITLES[name])
    page.context.close()


@pytest.mark.browser
def test_patient_does_not_reach_the_admin(site: Site, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto(f"{site.portal}/admin/")
    page.fill("#username", "amina")
    page.fill("#password", ACCOUNTS["amina"].password)
    page.click("button[value=sign-in]")
    page.wait_for_load_state()
    assert page.title().startswith("For the clinic’s staff")
    assert page.get_by_role("link", name="Admin", exact=True).count() == 0
    page.context.close()
