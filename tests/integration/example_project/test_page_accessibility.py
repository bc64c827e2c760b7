"""Each page in Chromium: no axe-core findings and no horizontal overflow, in light and dark themes."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string

from django_phi_oidc.login.failure_texts import FAILURE_TEXTS
from tests.integration.example_project.served_portal import PASSWORDS, Site
from tests.support.accessibility import faults
from tests.support.external_tools import CHROMIUM, PARTS

# The portal uses separate SQLite files here, so one database is enough.
pytestmark = [pytest.mark.browser, pytest.mark.sqlite]

Navigate = Callable[[Any, Site], None]


def sign_in(page: Any, site: Site, username: str = "amina") -> None:
    page.goto(f"{site.portal}/portal/")
    page.fill("#username", username)
    page.fill("#password", PASSWORDS[username])
    page.click("button[value=sign-in]")
    page.wait_for_url("**/portal/")


def signed_in(path: str) -> Navigate:
    def navigate(page: Any, site: Site) -> None:
        sign_in(page, site)
        page.goto(site.portal + path)

    return navigate


def anonymous(path: str) -> Navigate:
    def navigate(page: Any, site: Site) -> None:
        page.goto(site.portal + path)

    return navigate


def revealed(page: Any, site: Site) -> None:
    signed_in("/portal/profile/")(page, site)
    page.click("text=Show my details")
    page.wait_for_selector("[data-claim=birthdate]")


def unavailable(page: Any, site: Site) -> None:
    signed_in("/portal/profile/")(page, site)
    with site.failing_audit_log():
        page.click("text=Show my details")
        page.wait_for_selector(".notice")


def own_chart(page: Any, site: Site) -> None:
    signed_in("/portal/chart/")(page, site)
    page.fill("#username", "amina")
    page.fill("#password", PASSWORDS["amina"])
    page.click("button[value=sign-in]")
    page.wait_for_url("**/portal/chart/")


def patients(page: Any, site: Site) -> None:
    sign_in(page, site, "lena")
    page.goto(f"{site.portal}/portal/patients/")


def refused_chart(page: Any, site: Site) -> None:
    sign_in(page, site)
    page.goto(f"{site.portal}/portal/chart/1000000/")


def emergency(page: Any, site: Site) -> None:
    sign_in(page, site, "lena")
    page.goto(f"{site.portal}/portal/chart/1000000/")
    page.click("text=This is an emergency")


def emergency_open(page: Any, site: Site) -> None:
    emergency(page, site)
    page.fill("textarea", "Unknown medication.")
    page.click("text=Open emergency access")
    page.goto(f"{site.portal}/oidc/emergency/")
    page.wait_for_selector(".phi-oidc-emergency")


def own_disclosures(page: Any, site: Site) -> None:
    revealed(page, site)
    page.goto(f"{site.portal}/portal/access/?all=1")
    assert "You looked at your date of birth" in page.inner_text(".looks")


def own_account(page: Any, site: Site) -> None:
    with page.context.browser.new_context() as other:
        sign_in(other.new_page(), site)
    revealed(page, site)
    page.goto(f"{site.portal}/oidc/account/")
    assert page.locator("text=Sign out this device").count() >= 1


def disclosures_unavailable(page: Any, site: Site) -> None:
    signed_in("/portal/access/")(page, site)
    with site.failing_audit_log():
        page.reload()


def refused_purpose(page: Any, site: Site) -> None:
    signed_in("/portal/profile/")(page, site)
    page.eval_on_selector("input[name=purpose]", "choice => { choice.value = 'HMARKT' }")
    page.click("text=Show my details")
    page.wait_for_selector(".notice")


def no_purpose(page: Any, site: Site) -> None:
    signed_in("/portal/profile/")(page, site)
    page.eval_on_selector("input[name=purpose]", "choice => { choice.checked = false }")
    page.click("text=Show my details")
    page.wait_for_selector("#fault")


def signed_out(page: Any, site: Site) -> None:
    signed_in("/portal/")(page, site)
    page.click("text=Sign out")
    page.wait_for_url("**/oidc/logged-out/**")


def cancelled(page: Any, site: Site) -> None:
    page.goto(f"{site.portal}/portal/")
    page.click("button[value=cancel]")
    page.wait_for_url("**/oidc/callback/**")


def expired_form(page: Any, site: Site) -> None:
    signed_in("/portal/")(page, site)
    page.eval_on_selector("form [name=csrfmiddlewaretoken]", "field => { field.value = 'x' }")
    page.click("text=Sign out")
    page.wait_for_selector(".notice")


def broken(page: Any, site: Site) -> None:
    # With a session cookie, but without the session table.
    page.context.add_cookies([{"name": "sessionid", "value": "x" * 32, "url": site.portal}])
    anonymous("/portal/")(page, site)


PAGES: dict[str, tuple[Navigate, str]] = {
    "home": (anonymous("/"), "Your care, in one place"),
    "home signed in": (signed_in("/"), "Your care, in one place"),
    "portal": (signed_in("/portal/"), "Welcome"),
    "profile": (signed_in("/portal/profile/"), "My details"),
    "profile revealed": (revealed, "My details"),
    "profile without a purpose": (no_purpose, "My details"),
    "profile refused": (refused_purpose, "These details can’t be shown"),
    "own chart": (own_chart, "My chart"),
    "patients": (patients, "Patients"),
    "chart refused": (refused_chart, "You do not have access"),
    "emergency": (emergency, "Emergency access"),
    "emergency, open": (emergency_open, "Emergency access"),
    "who looked": (signed_in("/portal/access/"), "Who looked at my record"),
    "who looked, with own accesses": (own_disclosures, "Who looked at my record"),
    "who looked, unavailable": (disclosures_unavailable, "This page is not available at the moment"),
    "your access": (own_account, "Your access"),
    "your access, question": (signed_in("/oidc/account/sessions/end/"), "Sign out all other devices?"),
    "your access, who looked": (signed_in("/oidc/account/disclosures/?all=1"), "Who looked at your record"),
    "admin refused": (signed_in("/admin/"), "For the clinic’s staff"),
    "expired form": (expired_form, "This form has expired"),
    "sign-in refused": (anonymous("/oidc/callback/?state=none&code=none"), "Please start signing in again"),
    "sign-in refused, signed in": (signed_in("/oidc/callback/?state=none&code=none"), "Please start signing in again"),
    "sign-in cancelled": (cancelled, "The sign-in was not finished"),
    "profile unavailable": (unavailable, "Your details are not available at the moment"),
    "signed out": (signed_out, "You are signed out"),
    "sign-in confirmed": (signed_in("/oidc/signed-in/"), "You are signed in"),
    "sign-in not kept": (anonymous("/oidc/signed-in/"), "You are not signed in"),
    "provider's login": (anonymous("/portal/"), "Sign in"),
}
ERROR_PAGES: dict[str, tuple[Navigate, str]] = {
    "not found": (anonymous("/nowhere/"), "This page does not exist"),
    "broken": (broken, "Something went wrong on our side"),
    "choice of a provider": (anonymous("/portal/"), "How do you want to sign in?"),
    "sign-in unavailable": (anonymous("/oidc/region/authenticate/"), "Signing in is not possible at the moment"),
}
"""Pages that only appear without DEBUG or without a provider."""
EXAMPLE_ID = UUID("9a1c4e52-6a5e-4f5c-8a39-6b2c7d0e1f34")
CONTEXT = {
    "page": "restart",
    "text": FAILURE_TEXTS["restart"],
    "reference": "01a20f04-df0d-7d9d-af57-46f39850d3be",
    "restart_url": "/oidc/region/authenticate/",
    "choose_url": "/oidc/authenticate/",
    "sign_in_url": "/oidc/authenticate/?replace=1",
    "continue_url": "/",
    "home_url": "/",
    "start_url": "/",
    "is_debug": True,
    "is_unset": True,
    "setting": "/accounts/profile/",
    "account": "9a1c4e52-6a5e-4f5c-8a39-6b2c7d0e1f34",
    "expired": True,
    "sessions": [{"id": EXAMPLE_ID, "device": "Firefox on Windows", "provider": "Staff", "is_current": True}] * 2,
    "claims": [{"label": "Birthdate", "purpose_label": "Treatment"}],
    "heading": "Sign out this device?",
    "button": "Sign out",
    "ways": [{"label": "National identity of the northern region", "url": "/"}, {"label": "Staff", "url": "/"}],
}


ACCOUNT_PAGES = ("account", "account_confirm", "account_disclosures")
DEFAULT_PAGES = ("choose", "login_failed", "logged_out", "replace_session", "signed_in")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Chromium, for this module only: playwright keeps an event loop running in the thread, with which Django's
    synchronous code refuses to run."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only if the tests are not skipped

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PARTS["browser"]().where, args=[*CHROMIUM])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    yield context.new_page()
    context.close()


def check_page(page: Any, site: Site, navigate: Navigate, heading: str) -> None:
    """Navigate to the page with that heading, and check that it is accessible and fits in all themes."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    navigate(page, site)
    assert page.inner_text("h1") == heading
    assert faults(page, sure=True) == []
    assert errors == []


@pytest.mark.node
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible_and_fits_in_all_themes(name: str, site: Site, page: Any) -> None:
    check_page(page, site, *PAGES[name])


@pytest.mark.node
@pytest.mark.parametrize("name", ERROR_PAGES)
def test_error_page_is_accessible_and_fits_in_all_themes(name: str, bare_site: Site, page: Any) -> None:
    check_page(page, bare_site, *ERROR_PAGES[name])


@pytest.mark.node
@pytest.mark.parametrize("name", [*ACCOUNT_PAGES, *DEFAULT_PAGES])
def test_default_page_of_the_app_is_accessible_and_fits(name: str, page: Any) -> None:
    """With all optional content. Pages for other kinds of refusals differ only in their texts."""
    context = CONTEXT | ({"signed_in": True} if name == "signed_in" else {})
    folder = "phi_oidc_individual_rights" if name in ACCOUNT_PAGES else "django_phi_oidc"
    page.set_content(render_to_string(f"{folder}/{name}.html", context))
    # No server has the style sheet that the page links to.
    page.add_style_tag(path=finders.find("django_phi_oidc/pages.css"))
    assert page.inner_text("h1") == page.title()
    assert faults(page, sure=True) == []


def test_keyboard_shows_focus_and_skips_to_content(site: Site, page: Any) -> None:
    page.goto(f"{site.portal}/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Sign in"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_portal_works_without_javascript(site: Site, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, site)
    page.click("text=See my details")
    page.click("text=Show my details")
    assert "1984-03-09" in page.inner_text("[data-claim=birthdate]")
    page.click("text=Sign out")
    page.wait_for_url("**/oidc/logged-out/**")
    page.goto(f"{site.portal}/portal/")
    assert page.url.startswith(site.provider)
    context.close()


def test_pages_send_no_requests_to_other_hosts(site: Site, page: Any) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    revealed(page, site)
    assert urls
    assert [url for url in urls if not url.startswith((site.portal, site.provider))] == []
    assert {url for url in urls if url.endswith(".js")} == {f"{site.portal}/static/django_phi_oidc/session.js"}
