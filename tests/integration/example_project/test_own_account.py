"""A patient signs out a lost phone and downloads the data, in Chromium without JavaScript."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.example_project.served_portal import PASSWORDS, Site
from tests.support.external_tools import CHROMIUM, PARTS

pytestmark = [pytest.mark.browser, pytest.mark.sqlite]
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Chromium, for this module only, as in test_page_accessibility."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only if the tests are not skipped

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PARTS["browser"]().where, args=[*CHROMIUM])
        yield browser
        browser.close()


def open_portal(chromium: Any, site: Site, username: str, **options: Any) -> Any:
    page = chromium.new_context(java_script_enabled=False, **options).new_page()
    page.goto(f"{site.portal}/portal/")
    page.fill("#username", username)
    page.fill("#password", PASSWORDS[username])
    page.click("button[value=sign-in]")
    page.wait_for_url("**/portal/")
    return page


def test_asvs_7_5_2_patient_signs_out_a_lost_phone(site: Site, chromium: Any) -> None:
    phone = open_portal(chromium, site, "jonas", user_agent=IPHONE)
    other_person = open_portal(chromium, site, "sara", user_agent=IPHONE)
    laptop = open_portal(chromium, site, "jonas")
    laptop.click("text=Your access")
    lost = laptop.locator("li", has_text="Safari on iPhone")
    assert lost.count() == 1, "that of the other person is not shown"
    lost.locator("text=Sign out this device").click()
    assert laptop.inner_text("h1") == "Sign out this device?"
    laptop.click("main button")
    started = time.monotonic()
    assert laptop.inner_text("[role=status]") == "The device was signed out."
    phone.goto(f"{site.portal}/portal/")
    assert phone.url.startswith(f"{site.provider}/authorize")
    assert time.monotonic() - started < 5
    assert "prompt=login" in phone.url
    for page in (laptop, other_person):
        page.goto(f"{site.portal}/portal/")
        assert page.inner_text("h1") == "Welcome"
        page.context.close()
    phone.context.close()


def test_patient_downloads_the_own_data(site: Site, chromium: Any) -> None:
    page = open_portal(chromium, site, "jonas")
    page.click("text=Your access")
    page.click("text=Download your data")
    with page.expect_download() as download:
        page.click("main button")
    document = json.loads(Path(download.value.path()).read_text())
    assert download.value.suggested_filename == "my-data.json"
    (subject,) = document["subjects"]
    assert "birthdate" in [claim["name"] for claim in subject["claims"]]
    assert ("subject.exported", "success", "", "PATRQT") in site.list_events()
    page.context.close()
