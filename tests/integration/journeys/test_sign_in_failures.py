"""A sign-in that fails: what the person reads, and what the trail, the log and the host project are told instead."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session

from django_phi_oidc import errors
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.login.failures import get_failure_page
from django_phi_oidc.login.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView
from django_phi_oidc.oidc.authorization import AUTHORIZATION_ERROR_CODES
from django_phi_oidc.signals import sign_in_refused
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.attack_cases import BENT, TamperingCase
from tests.integration.journeys.test_rule_refusals import CLASSES, altered, bend_with
from tests.integration.journeys.test_rule_refusals import declare as declare_case
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.http_browser import Browser, PortalResponse
from tests.support.log_capture import capture_all_logs, leaks, secrets_of
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.sqlite]

HOW_TO = (Path(__file__).parents[3] / "docs" / "how-to" / "when-a-sign-in-fails.md").read_text()
NEXT = "/portal/charts-of-mrs-example/"
RESTART = "/oidc/authenticate/?next=%2Fportal%2Fcharts-of-mrs-example%2F"
Told = dict[str, Any]


def case_of(code: str, **like: Any) -> TamperingCase:
    return next(case for case in BENT if case.code == code and all(getattr(case, k) == v for k, v in like.items()))


def bent(case: TamperingCase, op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    """Return the page that the case leads to, of a person who wanted NEXT."""
    declare_case(settings, op, case)
    bend_with(op, case, case.invalid_value)
    return browser.sign_in(op, next_url=NEXT)


def heading(page: PortalResponse) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page.body)
    assert found
    return found[1]


def links(page: PortalResponse) -> list[str]:
    return [piece.partition('"')[0].replace("&amp;", "&") for piece in page.body.split('href="')[1:]]


def words(page: PortalResponse) -> str:
    """Return the page without what differs from one refusal to the next."""
    return re.sub(r"<code>.*?</code>", "<code></code>", page.body)


@pytest.fixture
def told() -> Iterator[list[Told]]:
    """What a receiver of a host project gets, with whether its event was written by then."""
    received: list[Told] = []

    def receive(**given: Any) -> None:
        is_id = re.fullmatch("[0-9a-f-]{36}", given["reference"])
        written = bool(is_id) and AuditEvent.objects.filter(id=given["reference"]).exists()
        received.append({**given, "written": written})

    sign_in_refused.connect(receive)
    yield received
    sign_in_refused.disconnect(receive)


# The pages


def cancelled(op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    begun = browser.start_sign_in(next_url=NEXT)
    return browser.get(op.authorize(begun.location, "amina", decision="cancel"))


def deactivated(op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    Browser(browser.base_url).sign_in(op)
    get_user_model().objects.update(is_active=False)
    return browser.sign_in(op, next_url=NEXT)


def not_let_in(op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Refusing"]
    return browser.sign_in(op, next_url=NEXT)


def too_late(op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    callback, later = browser.get_callback_url(op, next_url=NEXT), clock.now() + timedelta(minutes=11)
    with clock.override_clock(lambda: later):
        return browser.get(callback)


def without_trail(op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    callback = browser.get_callback_url(op, next_url=NEXT)
    with audit_database_away():
        return browser.get(callback)


def of_case(code: str, **like: Any) -> Callable[[DemoProvider, Any, Browser], PortalResponse]:
    return lambda op, settings, browser: bent(case_of(code, **like), op, settings, browser)


PAGES: dict[str, tuple[Callable[[DemoProvider, Any, Browser], PortalResponse], str, int]] = {
    "too late": (too_late, "Please start signing in again", 403),
    "cancelled": (cancelled, "The sign-in was not finished", 403),
    "too weak": (of_case("acr_insufficient"), "We need more proof that it is you", 403),
    "too long ago": (of_case("auth_time_stale"), "We need more proof that it is you", 403),
    "not shared": (of_case("claim_missing"), "Required information was not shared", 403),
    "deactivated": (deactivated, "You have no active account here", 403),
    "not provisioned": (not_let_in, "You have no active account here", 403),
    "forged": (of_case("signature_invalid"), "We could not sign you in safely", 403),
    "provider broken": (of_case("token_error", refusal_status=503), "Signing in is not possible at the moment", 503),
    "trail away": (without_trail, "Signing in is not possible at the moment", 503),
}


@pytest.mark.parametrize("name", PAGES)
def test_page_says_what_to_do_and_ends_the_flow(name: str, op: DemoProvider, settings: Any, browser: Browser) -> None:
    fail, said, status = PAGES[name]
    page = fail(op, settings, browser)
    assert (heading(page), page.status, page.location) == (said, status, "")
    assert f"<title>{said}</title>" in page.body
    assert links(page) == [RESTART]
    assert "<meta http-equiv" not in page.body
    assert "<script" not in page.body
    assert (page.join_header_values("Cache-Control"), page.join_header_values("Referrer-Policy")) == (
        "no-store",
        "no-referrer",
    )
    assert "phi_oidc_" not in "".join(browser.cookies), "what was pending is over"
    assert Session.objects.count() == int(name == "deactivated"), "of the sign-in before"
    for event in events(action="login.refused"):
        assert event.reason not in page.body
        assert str(event.id) in page.body


def test_button_of_the_page_leads_to_the_page_that_was_wanted(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    begun = browser.get(links(cancelled(op, settings, browser))[0])
    assert browser.get(op.authorize(begun.location, "amina")).location == NEXT


def test_pages_of_all_checks_of_the_tokens_are_one_page(op: DemoProvider, settings: Any, portal: str) -> None:
    codes = ["signature_invalid", "nonce_invalid", "aud_invalid", "token_type_unsupported", "userinfo_sub_mismatch"]
    pages = [bent(case_of(code), op, settings, Browser(portal)) for code in codes]
    assert [event.reason for event in events(action="login.refused")] == codes
    assert len({words(page) for page in pages}) == 1
    assert len({(page.status, *(name for name, _ in page.headers)) for page in pages}) == 1


def test_pages_of_a_state_that_was_and_one_that_never_was_are_one_page(
    op: DemoProvider, browser: Browser, portal: str
) -> None:
    used, pending = browser.get_callback_url(op), Browser(portal).get_callback_url(op)
    assert browser.get(used).status == 302
    pages = [Browser(portal).get(url) for url in (used, pending, altered(pending, state="x" * 43))]
    assert [event.reason for event in events(action="login.refused")] == [
        *("state_replayed", "state_unknown", "state_unknown")
    ]
    assert len({words(page) for page in pages}) == 1


def test_pages_of_one_unknown_and_one_deactivated_are_one_page(op: DemoProvider, settings: Any, portal: str) -> None:
    deactivated_page = deactivated(op, settings, Browser(portal))
    assert words(not_let_in(op, settings, Browser(portal))) == words(deactivated_page)
    assert [event.reason for event in events(action="login.refused")] == ["user_inactive", "not_provisioned"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/oidc/nobody/authenticate/?next={NEXT}", [RESTART]),
        ("/oidc/nobody/authenticate/?next=https://evil.example/", ["/oidc/authenticate/"]),
        ("/oidc/other/callback/?state=x&code=y", ["/oidc/other/authenticate/", "/oidc/authenticate/"]),
        ("/oidc/callback/?state=x&code=y", ["/oidc/authenticate/"]),
    ],
)
def test_page_leads_back_to_where_the_person_began_or_may_choose(
    path: str, expected: list[str], op: DemoProvider, settings: Any, browser: Browser
) -> None:
    both = {"default": declaration(op), "other": declaration(op)}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": both}
    assert links(browser.get(path)) == expected


def test_page_for_somebody_signed_in_leads_back_in(op: DemoProvider, browser: Browser) -> None:
    callback = browser.get_callback_url(op)
    browser.get(callback)
    page = browser.get(callback)
    assert heading(page) == "Please start signing in again"
    assert links(page) == ["/", "/oidc/authenticate/"]
    assert browser.user() != ""


def test_template_that_a_host_has_of_old_is_shown_for_all_kinds(
    op: DemoProvider, settings: Any, browser: Browser, tmp_path: Path
) -> None:
    folder = tmp_path / "django_phi_oidc"
    folder.mkdir()
    (folder / "login_failed.html").write_text("<h1>Ours</h1>{{ reference }} {{ restart_url }}")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    page = cancelled(op, settings, browser)
    (event,) = events(action="login.refused")
    assert page.body == f"<h1>Ours</h1>{event.id} {RESTART}"


# Kinds and codes


def rows() -> dict[str, str]:
    """Return what the table of the how-to has: heading → codes."""
    table = [line.split("|") for line in HOW_TO.splitlines() if line.startswith("| ")]
    return {cells[1].strip(): cells[2] for cells in table[1:]}


def page_of(fault: errors.SignInRefused | errors.AuditUnavailable) -> str:
    """Return the heading under which the how-to has a refusal."""
    code = fault.error if isinstance(fault, errors.ProviderError) else fault.code
    named = [said for said, codes in rows().items() if f"`{code}`" in codes]
    unnamed = (
        "Signing in is not possible at the moment" if fault.is_provider_fault else ("We could not sign you in safely")
    )
    return named[0] if named else unnamed


HEADINGS = {
    "restart": "Please start signing in again",
    "declined": "The sign-in was not finished",
    "stronger": "We need more proof that it is you",
    "not_shared": "Required information was not shared",
    "no_account": "You have no active account here",
    "other_person": "A different person has signed in",
    "failed": "We could not sign you in safely",
    "unavailable": "Signing in is not possible at the moment",
}


def test_kind_of_each_refusal_is_that_of_the_how_to() -> None:
    faults: list[errors.SignInRefused] = [
        *(cls() for cls in CLASSES.values() if "__init__" not in vars(cls)),
        errors.KeyNotFound(),
        *(errors.ProviderError(error) for error in sorted({*AUTHORIZATION_ERROR_CODES, "other"})),
        *(cls(status=status) for cls in (errors.TokenError, errors.PARError) for status in (400, 503)),
    ]
    assert {fault.code for fault in faults} == set(CLASSES)
    said = {str(vars(fault) or fault.code): HEADINGS[get_failure_page(fault)] for fault in faults}
    assert said == {str(vars(fault) or fault.code): page_of(fault) for fault in faults}


def test_how_to_has_each_page_and_no_code_that_is_none() -> None:
    assert set(rows()) == set(HEADINGS.values())
    named = set(re.findall(r"`([a-z_]+)`", " ".join(rows().values())))
    assert named <= {*CLASSES, *AUTHORIZATION_ERROR_CODES}


# What is told elsewhere


@pytest.mark.parametrize(
    ("name", "code", "level"),
    [
        ("too late", "state_expired", "WARNING"),
        ("forged", "signature_invalid", "WARNING"),
        ("provider broken", "token_error", "ERROR"),
        ("trail away", "audit_unavailable", "ERROR"),
    ],
)
def test_refusal_is_told_to_the_host_project_and_to_the_log(
    name: str, code: str, level: str, op: DemoProvider, settings: Any, browser: Browser, told: list[Told]
) -> None:
    with capture_all_logs() as log:
        page = PAGES[name][0](op, settings, browser)
    (given,) = told
    assert given["sender"] is OIDCAuthenticationCallbackView
    assert given["request"].path == "/oidc/callback/"
    assert (given["code"], given["provider"], given["stage"]) == (code, "default", "callback")
    assert f"<code>{given['reference']}</code>" in page.body
    assert given["written"] is (name != "trail away")
    (line,) = [line for line in log.lines if "django_phi_oidc.login:" in line]
    assert line.splitlines()[0] == (
        f"{level} django_phi_oidc.login: A sign-in was refused: "
        f"reason={code} provider=default stage=callback reference={given['reference']}"
    )
    assert NEXT not in "".join(log.lines)


def test_refusal_without_the_trail_is_told_all_the_same(op: DemoProvider, browser: Browser, told: list[Told]) -> None:
    with audit_database_away(), capture_all_logs() as log:
        page = browser.get("/oidc/callback/?state=x&code=y")
    (given,) = told
    assert (page.status, given["code"], given["written"]) == (403, "state_unknown", False)
    assert f"<code>{given['reference']}</code>" in page.body
    (line,) = [line for line in log.lines if "django_phi_oidc.login:" in line]
    assert line.startswith("ERROR django_phi_oidc.login: A sign-in was refused: reason=state_unknown")
    assert "AuditUnavailable" in line


def test_unforeseen_fault_at_either_door_is_told_and_raised(
    op: DemoProvider, settings: Any, browser: Browser, told: list[Told]
) -> None:
    callback = browser.get_callback_url(op)
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Raising"]
    assert browser.get(callback).status == 500
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    assert browser.start_sign_in().status == 500
    doors = [OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView]
    assert [(given["sender"], given["code"], given["stage"], given["written"]) for given in told] == [
        (door, "internal_error", stage, True) for door, stage in zip(doors, ["callback", "request"], strict=True)
    ]
    assert [(event.reason, event.outcome) for event in events(action="login.refused")] == [
        ("internal_error", "error")
    ] * 2
    assert op.active_tokens == []


@pytest.mark.parametrize(("count", "status", "reasons"), [(1000, 403, ["state_unknown"]), (1001, 400, [])])
def test_request_that_django_refuses_writes_nothing(
    count: int, status: int, reasons: list[str], op: DemoProvider, browser: Browser, told: list[Told]
) -> None:
    query = "&".join(["state=x", *(f"a{n}=" for n in range(count - 1))])
    assert browser.get(f"/oidc/callback/?{query}").status == status
    assert [event.reason for event in events(action="login.refused")] == reasons
    assert [given["code"] for given in told] == reasons


def test_receiver_that_raises_changes_nothing_and_is_logged_without_a_secret(
    op: DemoProvider, settings: Any, browser: Browser, told: list[Told]
) -> None:
    def fail(**given: Any) -> None:
        raise RuntimeError("the host's own fault")

    sign_in_refused.connect(fail)
    try:
        with capture_all_logs() as log:
            page = bent(case_of("signature_invalid"), op, settings, browser)
    finally:
        sign_in_refused.disconnect(fail)
    assert (page.status, heading(page)) == (403, "We could not sign you in safely")
    assert [given["code"] for given in told] == ["signature_invalid"]
    (line,) = [line for line in log.lines if "django.dispatch" in line]
    assert "the host's own fault" in line
    assert "Traceback" in line
    assert leaks(line, [op]) == []
    assert op.active_tokens == []


@pytest.mark.parametrize("path", ["/oidc/{}/authenticate/", "/oidc/{}/callback/?state=x&code=y"])
def test_name_that_nobody_declared_is_told_nowhere(
    path: str, op: DemoProvider, browser: Browser, told: list[Told]
) -> None:
    name = "a-stranger-was-here"
    with capture_all_logs() as log:
        page = browser.get(path.format(name))
    (event,), (given,) = events(action="login.refused"), told
    assert (page.status, event.provider, given["provider"]) == (403, "", "")
    assert name not in page.body
    assert [line for line in log.lines if name in line and "django.request" not in line] == []


def test_example_of_the_how_to_pages_somebody(
    op: DemoProvider, settings: Any, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    found = re.search(r"<!-- tested: receiver -->\n```python\n(.*?)```", HOW_TO, re.DOTALL)
    assert found
    project: dict[str, Any] = {"__name__": "hospital"}
    exec(found[1], project)
    try:
        browser.get("/oidc/callback/?state=x&code=y")
        bent(case_of("signature_invalid"), op, settings, browser)
    finally:
        assert sign_in_refused.disconnect(dispatch_uid="hospital.pager")
    event = events(action="login.refused")[-1]
    assert [record.getMessage() for record in caplog.records if record.name == "hospital.pager"] == [
        f"signature_invalid at default, callback: see event {event.id}"
    ]


def test_secrets_that_a_log_holds_are_found(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    secrets = secrets_of(op)
    assert {token.value for token in op.tokens} < secrets
    assert {op.get_subject("amina", "portal"), op.last_grant.code, op.last_grant.nonce} < secrets
    assert {request.parameters["code_verifier"] for request in op.requests if request.path == "/token"} < secrets
    assert set(leaks(f"told: {' '.join(secrets)}", [op])) >= secrets
    jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbWluYSJ9.c2ln"
    assert jwt.partition(".")[0] + "." in leaks(f"/?id_token_hint%3D{jwt}", [op])
    assert leaks("told: nothing", [op]) == []
