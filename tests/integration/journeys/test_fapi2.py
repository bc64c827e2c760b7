"""Sign-ins with the profile `fapi2`, clause by clause: FAPI 2.0 Security Profile 5.3.3."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.attack_cases import CLIENT, PRIVATE_KEY_JWT_CLIENT, PRIVATE_KEY_JWT_OPTIONS
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]


@pytest.fixture
def fapi2_op(op: DemoProvider, settings: Any) -> DemoProvider:
    """The provider as the profile requires it, declared with the profile."""
    op.register_client(replace(op.state.clients[CLIENT], **PRIVATE_KEY_JWT_CLIENT))
    op.par, op.state.dpop, op.signing_alg = "required", "required", "PS256"
    options = {
        **PRIVATE_KEY_JWT_OPTIONS,
        "profile": "fapi2",
        "par": "require",
        "dpop": "require",
        "id_token_signed_response_alg": ["PS256", "ES256", "EdDSA"],
    }
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}
    return op


def refusals() -> list[str]:
    return [event.reason for event in events(action="login.refused")]


def test_sign_in_sends_nothing_but_the_pushed_request_through_the_browser(
    fapi2_op: DemoProvider, browser: Browser
) -> None:
    redirect = browser.start_sign_in()
    assert set(parse_qs(urlsplit(redirect.location).query)) == {"client_id", "request_uri"}
    assert browser.get(fapi2_op.authorize(redirect.location, "amina")).location == "/portal/home/"
    assert OIDCSession.objects.get().dpop_seed is not None
    authenticated = [request for request in fapi2_op.requests if request.path in ("/par", "/token")]
    assert [request.auth_method for request in authenticated] == ["private_key_jwt"] * 2
    assert {request.assertion["aud"] for request in authenticated} == {fapi2_op.issuer}
    assert {request.assertion["alg"] for request in authenticated} == {"ES256"}
    assert all(request.headers["dpop"] for request in authenticated)
    assert {request.parameters.get("code_challenge_method") for request in authenticated[:1]} == {"S256"}
    assert [request.authorization for request in fapi2_op.requests if request.path == "/userinfo"] == ["DPoP"]


@pytest.mark.parametrize(
    ("endpoint", "change", "refused"),
    [
        ("token", lambda exchange: exchange.reply.json.update(token_type="Bearer"), "token_type_unsupported"),
        ("authorize", lambda exchange: exchange.reply.query.pop("iss", None), "iss_missing"),
        ("authorize", lambda exchange: exchange.reply.query.update(iss="https://other.example"), "iss_mismatch"),
    ],
)
def test_response_that_the_profile_does_not_permit_is_refused(
    endpoint: str, change: Any, refused: str, fapi2_op: DemoProvider, browser: Browser
) -> None:
    def tamper(at: str, exchange: MutableExchange) -> None:
        if at == endpoint:
            change(exchange)

    assert browser.sign_in(fapi2_op).status == 302
    fapi2_op.mutate = tamper
    another = Browser(browser.base_url)
    assert another.sign_in(fapi2_op).status == 403
    assert refusals() == [refused]


@pytest.mark.parametrize(
    ("member", "refused"),
    [
        ("authorization_response_iss_parameter_supported", "profile_unsupported"),
        ("pushed_authorization_request_endpoint", "par_unsupported"),
        ("dpop_signing_alg_values_supported", "dpop_unsupported"),
    ],
)
def test_provider_that_lacks_what_the_profile_requires_is_refused(
    member: str, refused: str, fapi2_op: DemoProvider, browser: Browser
) -> None:
    def omit(at: str, exchange: MutableExchange) -> None:
        if at == "discovery":
            del exchange.reply.json[member]

    fapi2_op.mutate = omit
    assert browser.start_sign_in().status == 403
    assert refusals() == [refused]


def test_id_token_by_rs256_is_refused(fapi2_op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(fapi2_op).status == 302
    fapi2_op.signing_alg = "RS256"
    assert Browser(browser.base_url).sign_in(fapi2_op).status == 403
    assert refusals() == ["alg_not_allowed"]
