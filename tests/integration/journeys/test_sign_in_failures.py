"""Failed sign-ins: the page that the user sees, and what audit log, logs and signal receivers get instead."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.urls import path

from django_phi_oidc import errors
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.login.failures import get_failure_page
from django_phi_oidc.login.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView
from django_phi_oidc.oidc.error_codes import REGISTERED_ERROR_CODES
from django_phi_oidc.oidc.remedies import REMEDIES, SEE_MANUAL
from django_phi_oidc.signals import sign_in_refused
from django_phi_oidc.testing.mock_provider import DemoProvider, Reply
from tests.integration.journeys.attack_cases import TAMPERING_CASES, TamperingCase
from tests.integration.journeys.test_rule_refusals import SIGN_IN_CODES, change_query, tamper_with
from tests.integration.journeys.test_rule_refusals import declare as declare_case
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.http_browser import Browser, PortalResponse
from tests.support.log_capture import capture_all_logs, leaks, secrets_of
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.sqlite]

HOW_TO = (Path(__file__).parents[3] / "docs" / "how-to" / "troubleshooting.md").read_text()
NEXT = "/portal/charts-of-mrs-example/"
RESTART = "/oidc/authenticate/?next=%2Fportal%2Fcharts-of-mrs-example%2F"
SignalArguments = dict[str, Any]


def case_of(code: str, **like: Any) -> TamperingCase:
    return next(
        case for case in TAMPERING_CASES if case.code == code and all(getattr(case, k) == v for k, v in like.items())
    )


def tampered_sign_in(case: TamperingCase, op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    """Return the failure page of the case for a user who requested NEXT."""
    declare_case(settings, op, case)
    tamper_with(op, case, case.invalid_value)
    return browser.sign_in(op, next_url=NEXT)


def heading(page: PortalResponse) -> str:
    match = re.search(r"<h1>(.*?)</h1>", page.body)
    assert match
    return match[1]


def links(page: PortalResponse) -> list[str]:
    return [
        piece.partition('"')[0].replace("&amp;", "&") for piece in page.body.partition("</head>")[2].split('href="')[1:]
    ]


def words(page: PortalResponse) -> str:
    """Return the page without the reference, which differs for each refusal."""
    return re.sub(r"<code>.*?</code>", "<code></code>", page.body)


@pytest.fixture
def signals() -> Iterator[list[SignalArguments]]:
    """The arguments that a signal receiver gets, and whether the event was already written."""
    signals: list[SignalArguments] = []

    def receive(**arguments: Any) -> None:
        is_id = re.fullmatch("[0-9a-f-]{36}", arguments["reference"])
        written = bool(is_id) and AuditEvent.objects.filter(id=arguments["reference"]).exists()
        signals.append({**arguments, "written": written})

    sign_in_refused.connect(receive)
    yield signals
    sign_in_refused.disconnect(receive)


# The pages


def cancelled(op: DemoProvider, settings: Any, browser: Browser) -> PortalResponse:
    redirect = browser.start_sign_in(next_url=NEXT)
    return browser.get(op.authorize(redirect.location, "amina", decision="cancel"))


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
    return lambda op, settings, browser: tampered_sign_in(case_of(code, **like), op, settings, browser)


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
def test_failure_page_offers_a_restart_and_ends_the_flow(
    name: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    fail, title, status = PAGES[name]
    page = fail(op, settings, browser)
    assert (heading(page), page.status, page.location) == (title, status, "")
    assert f"<title>{title}</title>" in page.body
    # Without an account, the same session of the provider would lead here again.
    assert links(page) == [f"{RESTART}&prompt=login" if name in ("not provisioned", "deactivated") else RESTART]
    assert "<meta http-equiv" not in page.body
    assert "<script" not in page.body
    assert (page.join_header_values("Cache-Control"), page.join_header_values("Referrer-Policy")) == (
        "no-store",
        "no-referrer",
    )
    assert "phi_oidc_" not in "".join(browser.cookies), "the state cookie is deleted"
    assert Session.objects.count() == int(name == "deactivated"), "only the session of the previous sign-in"
    for event in events(action="login.refused"):
        assert event.reason not in page.body
        assert str(event.id) in page.body


def test_restart_link_leads_to_the_requested_page(op: DemoProvider, settings: Any, browser: Browser) -> None:
    redirect = browser.get(links(cancelled(op, settings, browser))[0])
    assert browser.get(op.authorize(redirect.location, "amina")).location == NEXT


def test_failures_of_all_token_checks_show_the_same_page(op: DemoProvider, settings: Any, portal: str) -> None:
    codes = ["signature_invalid", "nonce_invalid", "aud_invalid", "token_type_unsupported", "userinfo_sub_mismatch"]
    pages = [tampered_sign_in(case_of(code), op, settings, Browser(portal)) for code in codes]
    assert [event.reason for event in events(action="login.refused")] == codes
    assert len({words(page) for page in pages}) == 1
    assert len({(page.status, *(name for name, _ in page.headers)) for page in pages}) == 1


def test_used_and_unknown_states_show_the_same_page(op: DemoProvider, browser: Browser, portal: str) -> None:
    used, pending = browser.get_callback_url(op), Browser(portal).get_callback_url(op)
    assert browser.get(used).status == 302
    pages = [Browser(portal).get(url) for url in (used, pending, change_query(pending, state="x" * 43))]
    assert [event.reason for event in events(action="login.refused")] == [
        *("state_replayed", "state_unknown", "state_unknown")
    ]
    assert len({words(page) for page in pages}) == 1


def test_unknown_and_deactivated_users_see_the_same_page(op: DemoProvider, settings: Any, portal: str) -> None:
    deactivated_page = deactivated(op, settings, Browser(portal))
    assert words(not_let_in(op, settings, Browser(portal))) == words(deactivated_page)
    assert [event.reason for event in events(action="login.refused")] == ["user_inactive", "not_provisioned"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/oidc/undeclared/authenticate/?next={NEXT}", [RESTART]),
        ("/oidc/undeclared/authenticate/?next=https://evil.example/", ["/oidc/authenticate/"]),
        ("/oidc/other/callback/?state=x&code=y", ["/oidc/other/authenticate/", "/oidc/authenticate/"]),
        ("/oidc/callback/?state=x&code=y", ["/oidc/authenticate/"]),
    ],
)
def test_failure_page_links_to_the_start_or_the_provider_choice(
    path: str, expected: list[str], op: DemoProvider, settings: Any, browser: Browser
) -> None:
    both = {"default": declaration(op), "other": declaration(op)}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": both}
    assert links(browser.get(path)) == expected


def test_failure_page_for_a_signed_in_user_links_to_the_portal(op: DemoProvider, browser: Browser) -> None:
    callback = browser.get_callback_url(op)
    browser.get(callback)
    page = browser.get(callback)
    assert heading(page) == "Please start signing in again"
    assert links(page) == ["/", "/oidc/authenticate/"]
    assert browser.user() != ""


def test_template_of_the_host_project_is_used_for_all_failures(
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
    """Return the table of the manual: heading → codes."""
    section = HOW_TO.partition("\n## What the page says\n")[2].partition("\n## ")[0]
    table = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
    return {cells[1].strip(): cells[2] for cells in table[1:]}


def page_of(fault: errors.SignInRefused | errors.AuditUnavailable) -> str:
    """Return the heading under which the how-to lists a refusal."""
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


def test_how_to_names_the_page_of_each_refusal() -> None:
    faults: list[errors.SignInRefused] = [
        *(
            errors.SignInRefused(code)
            for code in sorted(SIGN_IN_CODES - {"provider_error", "token_error", "par_error"})
        ),
        *(errors.ProviderError(error) for error in sorted({*REGISTERED_ERROR_CODES, "other"})),
        *(cls(status=status) for cls in (errors.TokenError, errors.PARError) for status in (400, 503)),
    ]
    assert {fault.code for fault in faults} == SIGN_IN_CODES
    headings = {str(vars(fault) or fault.code): HEADINGS[get_failure_page(fault)] for fault in faults}
    assert headings == {str(vars(fault) or fault.code): page_of(fault) for fault in faults}


def test_how_to_lists_each_page_and_only_existing_codes() -> None:
    assert set(rows()) == set(HEADINGS.values())
    named = set(re.findall(r"`([a-z_]+)`", " ".join(rows().values())))
    assert named <= {*SIGN_IN_CODES, *REGISTERED_ERROR_CODES}


# Signal and log


@pytest.mark.parametrize(
    ("name", "code", "level", "answer", "cure"),
    [
        ("too late", "state_expired", "WARNING", "", REMEDIES["state_expired"]),
        ("forged", "signature_invalid", "WARNING", "", SEE_MANUAL),
        ("cancelled", "provider_error", "WARNING", " provider_error=access_denied", REMEDIES["access_denied"]),
        (
            *("provider broken", "token_error", "ERROR", " provider_error=other provider_status=500"),
            REMEDIES["token_error"],
        ),
        ("trail away", "audit_unavailable", "ERROR", "", REMEDIES["audit_unavailable"]),
    ],
)
def test_refusal_sends_the_signal_and_is_logged(
    name: str,
    code: str,
    level: str,
    answer: str,
    cure: str,
    op: DemoProvider,
    settings: Any,
    browser: Browser,
    signals: list[SignalArguments],
) -> None:
    with capture_all_logs() as log:
        page = PAGES[name][0](op, settings, browser)
    (arguments,) = signals
    assert arguments["sender"] is OIDCAuthenticationCallbackView
    assert arguments["request"].path == "/oidc/callback/"
    assert (arguments["code"], arguments["provider"], arguments["stage"]) == (code, "default", "callback")
    assert f"<code>{arguments['reference']}</code>" in page.body
    assert arguments["written"] is (name != "trail away")
    (line,) = [line for line in log.lines if "django_phi_oidc.login:" in line]
    assert line.splitlines()[0] == (
        f"{level} django_phi_oidc.login: A sign-in was refused: "
        f"reason={code} provider=default stage=callback reference={arguments['reference']}{answer}. {cure}"
    )
    assert NEXT not in "".join(log.lines)


@pytest.mark.parametrize("endpoint", ["par", "token"])
@pytest.mark.parametrize(
    ("sent", "named"), [("invalid_client", "invalid_client"), ("unauthorized_client of Jane", "other")]
)
def test_error_of_the_provider_is_in_log_and_event_and_not_on_the_page(
    endpoint: str, sent: str, named: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.par = "offered"
    body = {"error": sent, "error_description": "the secret of Jane"}
    op.intercept = lambda at, exchange: Reply(status=401, json=body) if at == endpoint else None
    with capture_all_logs() as log:
        page = browser.sign_in(op) if endpoint == "token" else browser.start_sign_in()
    (event,) = events(action="login.refused")
    detail = json.loads(event.detail)
    assert (event.reason, detail["provider_error"], detail["provider_status"]) == (f"{endpoint}_error", named, 401)
    (line,) = [line for line in log.lines if "django_phi_oidc.login:" in line]
    assert f" reason={endpoint}_error provider=default " in line
    cure = REMEDIES.get(named) or REMEDIES[f"{endpoint}_error"]
    assert line.endswith(f" reference={event.id} provider_error={named} provider_status=401. {cure}")
    assert f"<code>{event.id}</code>" in page.body
    assert (page.status, heading(page)) == (403, "We could not sign you in safely")
    assert [word for word in ("Jane", "invalid_client", "401", "_error") if word in page.body] == []
    assert "Jane" not in event.detail + "".join(log.lines)


def test_refusal_without_the_audit_database_sends_the_signal_and_is_logged(
    op: DemoProvider, browser: Browser, signals: list[SignalArguments]
) -> None:
    with audit_database_away(), capture_all_logs() as log:
        page = browser.get("/oidc/callback/?state=x&code=y")
    (arguments,) = signals
    assert (page.status, arguments["code"], arguments["written"]) == (403, "state_unknown", False)
    assert f"<code>{arguments['reference']}</code>" in page.body
    (line,) = [line for line in log.lines if "django_phi_oidc.login:" in line]
    assert line.startswith("ERROR django_phi_oidc.login: A sign-in was refused: reason=state_unknown")
    assert "AuditUnavailable" in line


urlpatterns = [path("oidc/authenticate/", OIDCAuthenticationRequestView.as_view(), name="oidc_authentication_init")]
"""Without the callback, which is an unexpected exception."""


@pytest.mark.parametrize(
    ("changes", "provider", "line"),
    [
        ({"CLAIMS": "not a mapping"}, "default", "PHI_OIDC['CLAIMS'] must be a dictionary."),
        (
            {"PROVIDERS": {"default": {"client_secrets": "s3cret"}}},
            *("", "PHI_OIDC['PROVIDERS']['default']: no option client_secrets; did you mean client_secret?"),
        ),
    ],
)
def test_wrong_option_is_refused_with_a_page_and_the_log_names_it(
    changes: dict[str, Any],
    provider: str,
    line: str,
    op: DemoProvider,
    settings: Any,
    browser: Browser,
    signals: list[SignalArguments],
) -> None:
    callback = browser.get_callback_url(op)
    settings.PHI_OIDC = {**settings.PHI_OIDC, **changes}
    with capture_all_logs() as log:
        pages = [browser.start_sign_in(), browser.get(callback)]
    assert [(page.status, heading(page)) for page in pages] == [(503, "Signing in is not possible at the moment")] * 2
    refused = events(action="login.refused")
    assert [(event.reason, event.provider) for event in refused] == [("declaration_invalid", provider)] * 2
    assert all(f"<code>{event.id}</code>" in page.body for event, page in zip(refused, pages, strict=True))
    assert all("PHI_OIDC" not in page.body for page in pages)
    lines = [entry for entry in log.lines if "django_phi_oidc.login:" in entry]
    assert line in lines[0]
    assert lines[1].endswith(REMEDIES["declaration_invalid"])
    assert "s3cret" not in "".join(log.lines)
    assert [sent["code"] for sent in signals] == ["declaration_invalid"] * 2


def test_missing_essential_claim_is_named_in_log_and_event(op: DemoProvider, settings: Any, browser: Browser) -> None:
    with capture_all_logs() as log:
        page = tampered_sign_in(case_of("claim_missing"), op, settings, browser)
    (event,) = events(action="login.refused")
    (name,) = json.loads(event.detail)["claims"]
    assert name in settings.PHI_OIDC["CLAIMS"]
    (line,) = [line for line in log.lines if "django_phi_oidc.login:" in line]
    assert line.endswith(f" reference={event.id} claims={name}. {REMEDIES['claim_missing']}")
    assert name not in page.body


def test_unexpected_exception_in_either_view_is_reported_and_raised(
    op: DemoProvider, settings: Any, browser: Browser, signals: list[SignalArguments]
) -> None:
    callback = browser.get_callback_url(op)
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Raising"]
    assert browser.get(callback).status == 500
    settings.ROOT_URLCONF = __name__
    assert browser.start_sign_in().status == 500
    views = [OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView]
    assert [(sent["sender"], sent["code"], sent["stage"], sent["written"]) for sent in signals] == [
        (view, "internal_error", stage, True) for view, stage in zip(views, ["callback", "request"], strict=True)
    ]
    assert [(event.reason, event.outcome) for event in events(action="login.refused")] == [
        ("internal_error", "error")
    ] * 2
    assert op.active_tokens == []


@pytest.mark.parametrize(("count", "status", "reasons"), [(1000, 403, ["state_unknown"]), (1001, 400, [])])
def test_request_refused_by_django_writes_no_event(
    count: int, status: int, reasons: list[str], op: DemoProvider, browser: Browser, signals: list[SignalArguments]
) -> None:
    query = "&".join(["state=x", *(f"a{n}=" for n in range(count - 1))])
    assert browser.get(f"/oidc/callback/?{query}").status == status
    assert [event.reason for event in events(action="login.refused")] == reasons
    assert [sent["code"] for sent in signals] == reasons


def test_exception_of_a_receiver_changes_nothing_and_is_logged_without_secrets(
    op: DemoProvider, settings: Any, browser: Browser, signals: list[SignalArguments]
) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("error of the host project")

    sign_in_refused.connect(fail)
    try:
        with capture_all_logs() as log:
            page = tampered_sign_in(case_of("signature_invalid"), op, settings, browser)
    finally:
        sign_in_refused.disconnect(fail)
    assert (page.status, heading(page)) == (403, "We could not sign you in safely")
    assert [sent["code"] for sent in signals] == ["signature_invalid"]
    (line,) = [line for line in log.lines if "django.dispatch" in line]
    assert "error of the host project" in line
    assert "Traceback" in line
    assert leaks(line, [op]) == []
    assert op.active_tokens == []


@pytest.mark.parametrize("path", ["/oidc/{}/authenticate/", "/oidc/{}/callback/?state=x&code=y"])
def test_undeclared_provider_name_appears_in_no_output(
    path: str, op: DemoProvider, browser: Browser, signals: list[SignalArguments]
) -> None:
    name = "undeclared-provider"
    with capture_all_logs() as log:
        page = browser.get(path.format(name))
    (event,), (arguments,) = events(action="login.refused"), signals
    assert (page.status, event.provider, arguments["provider"]) == (403, "", "")
    assert name not in page.body
    assert [line for line in log.lines if name in line and "django.request" not in line] == []


def test_receiver_example_of_the_how_to_works(
    op: DemoProvider, settings: Any, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    example = re.search(r"<!-- tested: receiver -->\n```python\n(.*?)```", HOW_TO, re.DOTALL)
    assert example
    project: dict[str, Any] = {"__name__": "hospital"}
    exec(example[1], project)
    try:
        browser.get("/oidc/callback/?state=x&code=y")
        tampered_sign_in(case_of("signature_invalid"), op, settings, browser)
    finally:
        assert sign_in_refused.disconnect(dispatch_uid="hospital.pager")
    event = events(action="login.refused")[-1]
    assert [record.getMessage() for record in caplog.records if record.name == "hospital.pager"] == [
        f"signature_invalid at default, callback: see event {event.id}"
    ]


def test_secrets_in_a_log_are_found(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    secrets = secrets_of(op)
    assert {token.value for token in op.tokens} < secrets
    assert {op.get_subject("amina", "portal"), op.last_grant.code, op.last_grant.nonce} < secrets
    assert {request.parameters["code_verifier"] for request in op.requests if request.path == "/token"} < secrets
    assert set(leaks(f"logged: {' '.join(secrets)}", [op])) >= secrets
    jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbWluYSJ9.c2ln"
    assert jwt.partition(".")[0] + "." in leaks(f"/?id_token_hint%3D{jwt}", [op])
    assert leaks("logged: nothing", [op]) == []
