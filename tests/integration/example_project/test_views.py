"""The pages over HTTP: access, content and headers."""

import os
import re
import stat

import pytest
from portal.demo.browser import Browser, Page

from tests.integration.example_project.served_portal import Site

pytestmark = pytest.mark.sqlite

PUBLIC = ["/", "/healthz"]
SIGNED_IN_ONLY = [
    "/portal/",
    "/portal/chart/",
    "/portal/chart/1/",
    "/portal/patients/",
    "/portal/profile/",
    "/portal/access/",
    "/oidc/account/",
    "/admin/",
]


@pytest.fixture
def browser() -> Browser:
    return Browser()


def submit_purpose(site: Site, browser: Browser, fields: dict[str, str], page: Page | None = None) -> Page:
    """Submit the form of the profile page."""
    form = page or site.sign_in(browser, path="/portal/profile/")
    return browser.submit(form, fields) if "purpose" in fields else browser.submit(form, fields, action="")


@pytest.mark.parametrize("path", PUBLIC)
def test_public_page_is_shown_without_sign_in(site: Site, browser: Browser, path: str) -> None:
    assert browser.open(site.portal + path).status == 200


@pytest.mark.parametrize("path", SIGNED_IN_ONLY)
def test_page_without_sign_in_redirects_to_the_provider(site: Site, browser: Browser, path: str) -> None:
    assert browser.open(site.portal + path).url.startswith(f"{site.provider}/authorize")


def test_portal_page_contains_the_user(site: Site, browser: Browser) -> None:
    page = site.sign_in(browser)
    assert page.status == 200
    assert re.search(r'data-user="\d+"', page.text)
    assert "no-store" in page.headers["Cache-Control"]
    assert "amina" not in page.text.lower()


def test_sign_in_leads_to_the_requested_page(site: Site, browser: Browser) -> None:
    assert site.sign_in(browser, path="/portal/profile/").path == "/portal/profile/"


@pytest.mark.parametrize(
    ("purpose", "shown", "hidden"),
    [
        ("PATRQT", ["1984-03-09", "Tulegatan 7B"], []),
        ("TREAT", ["1984-03-09"], ["Tulegatan 7B"]),
        ("HOPERAT", ["Tulegatan 7B"], ["1984-03-09"]),
    ],
)
def test_profile_with_a_purpose_shows_the_claims_of_that_purpose(
    site: Site, browser: Browser, purpose: str, shown: list[str], hidden: list[str]
) -> None:
    before = len(site.list_events())
    page = submit_purpose(site, browser, {"purpose": purpose})
    assert page.status == 200
    assert all(value in page.text for value in shown)
    assert not any(value in page.text for value in hidden)
    assert "no-store" in page.headers["Cache-Control"]
    revealed = [
        event for event in site.list_events()[before:] if event[0] == "claim.revealed" and event[1] == "success"
    ]
    assert {event[3] for event in revealed} == {purpose}
    assert len(revealed) >= len(shown)


def test_profile_without_a_purpose_lists_claims_without_values(site: Site, browser: Browser) -> None:
    before = len(site.list_events())
    page = site.sign_in(browser, path="/portal/profile/")
    assert "1984-03-09" not in page.text
    assert "Choose a purpose" in page.text
    assert re.findall('data-sealed="([a-z_]+)"', page.text) == ["birthdate", "address", "phone_number"]
    assert "Treatment: identity check before treatment. Stored until you sign out." in page.text
    assert "Running the clinic: appointment letters. Stored for 1 day." in page.text
    assert "claim.revealed" not in [event[0] for event in site.list_events()[before:]]


def test_profile_with_a_purpose_hides_the_claims_of_other_purposes(site: Site, browser: Browser) -> None:
    page = submit_purpose(site, browser, {"purpose": "TREAT"})
    assert re.findall('data-(claim|sealed)="([a-z_]+)"', page.text) == [
        *(("claim", "birthdate"), ("sealed", "address"), ("sealed", "phone_number")),
    ]
    assert "Shown for: Treatment" in page.text


def test_profile_form_without_a_purpose_is_shown_again(site: Site, browser: Browser) -> None:
    page = submit_purpose(site, browser, {"purpose": ""})
    assert page.status == 400
    assert "Choose a purpose first." in page.text
    assert "1984-03-09" not in page.text


@pytest.mark.parametrize(("purpose", "reason"), [("HMARKT", "purpose_not_declared"), ("CURIOSITY", "purpose_unknown")])
def test_profile_with_an_undeclared_purpose_is_refused(site: Site, browser: Browser, purpose: str, reason: str) -> None:
    page = submit_purpose(site, browser, {"purpose": purpose})
    assert page.status == 403
    assert "1984-03-09" not in page.text
    assert reason not in page.text
    assert ("access.denied", "failure", reason, purpose) in site.list_events()


def test_profile_with_an_expired_form_is_refused(site: Site, browser: Browser) -> None:
    page = submit_purpose(site, browser, {"purpose": "PATRQT", "csrfmiddlewaretoken": "another"})
    assert page.status == 403
    assert "This form has expired" in page.text


def test_profile_shows_an_expired_claim_as_erased(site: Site, browser: Browser) -> None:
    form = site.sign_in(browser, path="/portal/profile/")
    expired = site.wait_until_expired("phone_number")
    page = submit_purpose(site, browser, {"purpose": "PATRQT"}, page=form)
    assert expired
    assert "Erased: the retention time is over" in page.text
    assert "+46 8 555 010 22" not in page.text


def test_profile_shows_no_claims_if_the_audit_database_fails(site: Site, browser: Browser) -> None:
    form = site.sign_in(browser, path="/portal/profile/")
    with site.failing_audit_log():
        refused = submit_purpose(site, browser, {"purpose": "PATRQT"}, page=form)
    assert refused.status == 503
    assert "1984-03-09" not in refused.text
    assert submit_purpose(site, browser, {"purpose": "PATRQT"}, page=form).status == 200


def test_access_page_shows_own_accesses_on_request(site: Site, browser: Browser) -> None:
    submit_purpose(site, browser, {"purpose": "TREAT"})
    before = len(site.list_events())
    page = browser.open(f"{site.portal}/portal/access/")
    assert "No one else has looked at your record." in page.text
    assert "no-store" in page.headers["Cache-Control"]
    page = browser.open(f"{site.portal}/portal/access/?all=1")
    assert "<strong>You</strong> looked at <strong>your date of birth</strong>" in page.text
    assert [event[0] for event in site.list_events()[before:]] == ["subject.accounted"] * 2


def test_access_page_is_not_shown_if_the_audit_database_fails(site: Site, browser: Browser) -> None:
    submit_purpose(site, browser, {"purpose": "TREAT"})
    with site.failing_audit_log():
        refused = browser.open(f"{site.portal}/portal/access/?all=1")
    assert refused.status == 503
    assert "date of birth" not in refused.text
    assert browser.open(f"{site.portal}/portal/access/?all=1").status == 200


def test_admin_refuses_a_patient_without_a_redirect_loop(site: Site, browser: Browser) -> None:
    page = site.sign_in(browser, "jonas", path="/admin/")
    assert page.status == 403
    assert "For the clinic’s staff" in page.text


def test_sign_out_by_get_is_refused(site: Site, browser: Browser) -> None:
    site.sign_in(browser)
    assert browser.open(f"{site.portal}/oidc/logout/").status == 405
    assert browser.open(f"{site.portal}/portal/").path == "/portal/"


def test_sign_out_ends_the_sessions_at_portal_and_provider(site: Site, browser: Browser) -> None:
    page = browser.submit(site.sign_in(browser), {}, action="/oidc/logout/")
    assert page.path == "/oidc/logged-out/"
    assert browser.open(f"{site.portal}/portal/").url.startswith(f"{site.provider}/authorize")


@pytest.mark.parametrize("path", [*PUBLIC, "/portal/", "/nowhere", "/oidc/callback/?state=x&code=y"])
def test_pages_allow_no_inline_scripts_and_no_external_resources(site: Site, browser: Browser, path: str) -> None:
    site.sign_in(browser)
    page = browser.open(site.portal + path)
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == "'self'"
    assert policy["form-action"] == f"'self' {site.provider}"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert [tag for tag in re.findall(r"<script[^>]*>", page.text) if ' src="/static/' not in tag] == []
    assert " style=" not in page.text


def test_log_of_the_portal_has_no_query_strings(site: Site, browser: Browser) -> None:
    site.sign_in(browser)
    log = (site.var / "log" / "portal.log").read_text()
    assert "/oidc/callback/?…" in log
    assert "code=" not in log
    assert "state=" not in log


def test_key_files_are_only_readable_by_their_owner(site: Site) -> None:
    files = list((site.var / "keys").iterdir())
    assert len(files) == 7
    assert {stat.S_IMODE(os.stat(file).st_mode) for file in files} == {0o600}
