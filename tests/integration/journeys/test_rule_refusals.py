"""Each refusal of R1 to R7, over real sockets, with an acceptance that differs in one thing.

A case changes the provider's response with one function and two values: `invalid_value` is refused with the code of the
rule, `valid_value` is accepted. If the portal had received tokens, they are revoked before the page is returned.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys import test_accounts, test_step_up  # noqa: F401 -- they register codes too
from tests.integration.journeys.attack_cases import (
    CLIENT,
    ID_TOKEN_CASES,
    OMITTED,
    TAMPERING_CASES,
    TRANSPORT_CASES,
    USERINFO_CASES,
    TamperingCase,
    build_federation_options,
    tamper_member,
)
from tests.integration.journeys.rule_codes import ACCEPTED, REFUSED, accepts, refuses, shows
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, declaration, events
from tests.support.rule_code_catalogue import list_all_codes
from tests.support.tls import CertificateAuthority

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.postgresql]

SIGN_IN_CODES = {code for code in list_all_codes() if code.rule}

PROVIDER_FAULTS = {str(code) for code in SIGN_IN_CODES if code.is_provider_fault}


def declare(settings: Any, op: DemoProvider, case: TamperingCase) -> None:
    federation = build_federation_options(op) if case.is_federated else {}
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], **case.options, **federation}
    claims = dict(settings.PHI_OIDC["CLAIMS"])
    claims["birthdate"] = {**claims["birthdate"], "essential": case.is_claim_essential}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}, "CLAIMS": claims}
    op.register_client(replace(op.state.clients[CLIENT], **case.client_options))
    for name, value in case.provider_state.items():
        setattr(op.state, name, value)


def tamper_with(op: DemoProvider, case: TamperingCase, value: Any) -> None:
    def hook(endpoint: str, exchange: MutableExchange) -> Reply | None:
        return case.tamper(exchange, value) if endpoint == case.endpoint else None

    # Otherwise UserInfo would be requested and return a sub that the changed ID Token no longer has.
    op.state.scope_claims_in_id_token = case.endpoint == "id_token"
    if case.tamper_before_endpoint:
        op.intercept = hook
    else:
        op.mutate = hook


def assert_refused(page: PortalResponse, browser: Browser, code: str, *, status: int = 0) -> None:
    """The page shows only a reference, the event has the code, and no user is signed in."""
    (event,) = events(action="login.refused")
    assert event.reason == code
    assert page.status == (status or (503 if code in PROVIDER_FAULTS else 403)), page.body
    assert code not in page.body
    assert str(event.id) in page.body
    assert page.join_header_values("Cache-Control") == "no-store"
    assert browser.user() == ""
    assert events(action="login.succeeded") == []


def assert_accepted(page: PortalResponse, browser: Browser, op: DemoProvider) -> None:
    assert (page.status, page.location) == (302, "/portal/home/"), page.body
    assert browser.user() != ""
    assert events(action="login.refused") == []
    assert len(events(action="login.succeeded")) == 1
    assert {token.kind for token in op.active_tokens} == {"access_token", "refresh_token"}


CASES = [
    pytest.param(case, id=str(case), marks=[pytest.mark.sqlite] if case.sqlite_only else []) for case in TAMPERING_CASES
]


@refuses(*{case.code for case in TAMPERING_CASES})
@pytest.mark.parametrize("case", CASES)
def test_sign_in_tampered_with_by_the_provider_is_refused(
    case: TamperingCase, request: pytest.FixtureRequest, settings: Any, browser: Browser
) -> None:
    op = request.getfixturevalue("tls_op" if case in TRANSPORT_CASES else "op")
    declare(settings, op, case)
    tamper_with(op, case, case.invalid_value)
    page = browser.start_sign_in() if case.stage == "request" else browser.sign_in(op)
    assert_refused(page, browser, case.code, status=case.refusal_status)
    if case.holds_tokens:
        assert {token.kind for token in op.tokens} == {"access_token", "refresh_token"}
        assert op.active_tokens == []
        assert events(action="token.revoked", outcome="success") != []
    if case.tamper_before_endpoint or case.stage == "request":
        assert op.tokens == []


@accepts(*{case.code for case in TAMPERING_CASES})
@pytest.mark.parametrize("case", CASES)
def test_sign_in_with_the_valid_value_is_accepted(
    case: TamperingCase, request: pytest.FixtureRequest, settings: Any, browser: Browser
) -> None:
    op = request.getfixturevalue("tls_op" if case in TRANSPORT_CASES else "op")
    declare(settings, op, case)
    tamper_with(op, case, case.valid_value)
    assert_accepted(browser.sign_in(op), browser, op)


@refuses("transport_tls")
def test_certificate_of_another_ca_is_refused(
    tls_op: DemoProvider, settings: Any, browser: Browser, other_authority: CertificateAuthority
) -> None:
    provider = settings.PHI_OIDC["PROVIDERS"]["default"]
    foreign = {**provider, "ca_bundle": other_authority.certificate_path}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": foreign}}
    assert_refused(browser.start_sign_in(), browser, "transport_tls")


@accepts("transport_tls")
def test_certificate_of_the_declared_ca_is_accepted(tls_op: DemoProvider, browser: Browser) -> None:
    assert_accepted(browser.sign_in(tls_op), browser, tls_op)


@pytest.mark.parametrize("case", {case.code: case for case in (*ID_TOKEN_CASES, *USERINFO_CASES)}.values(), ids=str)
def test_only_an_accepted_sign_in_of_another_person_replaces_the_session(
    case: TamperingCase, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    assert browser.sign_in(op).status == 302
    amina, cookie, her_tokens = browser.user(), browser.cookies["sessionid"], op.active_tokens
    assert len(her_tokens) == 2
    browser.provider_cookies.clear()
    declare(settings, op, case)
    tamper_with(op, case, case.invalid_value)
    page = browser.get(browser.get_callback_url(op, "jonas"))
    (event,) = events(action="login.refused")
    assert (event.reason, str(event.id) in page.body) == (case.code, True)
    assert (browser.user(), browser.cookies["sessionid"]) == (amina, cookie)
    assert OIDCSession.objects.get().ended_at is None
    assert {(token.kind, token.grant.account.username) for token in op.tokens[2:]} == {
        ("access_token", "jonas"),
        ("refresh_token", "jonas"),
    }
    assert op.active_tokens == her_tokens

    tamper_with(op, case, case.valid_value)
    assert browser.get(browser.get_callback_url(op, "jonas")).status == 302
    assert browser.user() not in ("", amina)
    assert OIDCSession.objects.get(user=amina).end_reason == "replaced"
    assert {token.grant.account.username for token in op.active_tokens} == {"jonas"}


def change_query(url: str, **changes: Any) -> str:
    """Return url with parameters replaced, omitted (OMITTED) or repeated (a list)."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **changes}
    return parts._replace(query=urlencode({k: v for k, v in query.items() if v is not OMITTED}, doseq=True)).geturl()


# code -> (changes of the callback that are refused, changes that are accepted)
CALLBACK_CASES = {
    "state_missing": ({"state": OMITTED}, {}),
    "state_unknown": ({"state": "x" * 43}, {}),
    "iss_mismatch": ({"iss": "https://elsewhere.example"}, {}),
    "iss_missing": ({"iss": OMITTED}, {}),
    "provider_error": ({"error": "access_denied"}, {"remark": "access_denied"}),
    "parameter_repeated": ({"code": ["a", "b"]}, {"remark": ["a", "b"]}),
    "code_missing": ({"code": OMITTED}, {}),
}


@refuses(*CALLBACK_CASES)
@pytest.mark.parametrize("code", CALLBACK_CASES)
def test_callback_with_invalid_parameters_is_refused(code: str, op: DemoProvider, browser: Browser) -> None:
    page = browser.get(change_query(browser.get_callback_url(op), **CALLBACK_CASES[code][0]))
    assert_refused(page, browser, code)
    assert op.tokens == []


@accepts(*CALLBACK_CASES)
@pytest.mark.parametrize("code", CALLBACK_CASES)
def test_callback_with_harmless_changes_is_accepted(code: str, op: DemoProvider, browser: Browser) -> None:
    assert_accepted(browser.get(change_query(browser.get_callback_url(op), **CALLBACK_CASES[code][1])), browser, op)


def test_callback_is_accepted_only_in_its_own_browser(op: DemoProvider, browser: Browser, portal: str) -> None:
    callback = browser.get_callback_url(op)
    other = Browser(portal)
    assert_refused(other.get(callback), other, "state_unknown")
    assert op.tokens == []
    assert browser.get(callback).status == 302


@shows("state_replayed")
def test_replayed_callback_is_refused(op: DemoProvider, browser: Browser) -> None:
    callback = browser.get_callback_url(op)
    pending = dict(browser.cookies)
    assert_accepted(browser.get(callback), browser, op)
    signed_in = dict(browser.cookies)
    for cookies in (signed_in, {**signed_in, **pending}):
        browser.cookies = cookies
        page = browser.get(callback)
        assert page.status == 403
        assert [event.reason for event in events(action="login.refused")][-1] == "state_replayed"
        assert browser.user() != "", "a refused callback does not sign out"
    assert [request.path for request in op.requests].count("/token") == 1


@shows("state_expired")
@pytest.mark.parametrize(("minutes", "status"), [(10.1, 403), (9.9, 302)])
def test_callback_after_ten_minutes_is_refused(minutes: float, status: int, op: DemoProvider, browser: Browser) -> None:
    redirect = browser.start_sign_in()
    later = clock.now() + timedelta(minutes=minutes)
    with clock.override_clock(lambda: later):
        page = browser.get(op.authorize(redirect.location, "amina"))
        assert page.status == status
        if status == 403:
            assert_refused(page, browser, "state_expired")


@shows("token_replayed")
def test_replayed_id_token_is_refused_with_its_own_code(op: DemoProvider, browser: Browser, portal: str) -> None:
    earlier: list[str] = []

    def store(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            earlier.append(exchange.reply.json["id_token"])

    def replay(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.token = earlier[0]

    op.mutate = store
    assert_accepted(browser.sign_in(op), browser, op)
    op.mutate = replay
    again = Browser(portal)
    page = again.sign_in(op)
    assert page.status == 403
    assert [event.reason for event in events(action="login.refused")] == ["token_replayed"]
    assert len(op.active_tokens) == 2, "the tokens of the accepted sign-in"


@pytest.mark.parametrize("azp", [OMITTED, "another", CLIENT])
def test_azp_is_required_with_a_second_audience(azp: Any, op: DemoProvider, settings: Any, browser: Browser) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "trusted_audiences": ["billing"]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}

    def two(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims["aud"] = [CLIENT, "billing"]
            tamper_member("azp")(exchange, azp)

    op.mutate = two
    page = browser.sign_in(op)
    if azp == CLIENT:
        assert_accepted(page, browser, op)
    else:
        assert_refused(page, browser, "azp_invalid")


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA", "RS256"])
def test_each_allowed_algorithm_is_accepted(alg: str, op: DemoProvider, browser: Browser) -> None:
    op.signing_alg = alg
    assert_accepted(browser.sign_in(op), browser, op)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_each_client_authentication_is_accepted(method: str, op: DemoProvider, settings: Any, browser: Browser) -> None:
    provider = declaration(op, token_endpoint_auth_method=method)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    assert_accepted(browser.sign_in(op), browser, op)
    assert {request.auth_method for request in op.requests if request.path == "/token"} == {method}


def test_every_code_has_a_pair() -> None:
    assert set(REFUSED) == SIGN_IN_CODES
    assert set(ACCEPTED) == SIGN_IN_CODES
