"""Requests to the provider: PAR or browser, client authentication, requested claims and scopes."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.attack_cases import CLIENT, PRIVATE_KEY_JWT_CLIENT, PRIVATE_KEY_JWT_OPTIONS
from tests.support.client_keys import create_private_key_pem
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]


def declare(settings: Any, op: DemoProvider, **options: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}


def register(op: DemoProvider, **options: Any) -> None:
    op.register_client(replace(op.state.clients[CLIENT], **options))


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, strict_parsing=True)


def sent_to(op: DemoProvider, path: str) -> list[Any]:
    return [request for request in op.requests if request.path == path]


@pytest.mark.parametrize(("par", "declared"), [("offered", "auto"), ("required", "require")])
def test_pushed_request_parameters_do_not_reach_the_browser(
    par: Any, declared: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.par = par
    declare(settings, op, par=declared)
    redirect = browser.start_sign_in()
    query = query_of(redirect.location)
    assert set(query) == {"client_id", "request_uri"}
    (push,) = sent_to(op, "/par")
    assert push.auth_method == "client_secret_basic"
    assert {"state", "nonce", "code_challenge", "redirect_uri", "scope"} <= set(push.parameters)
    assert push.parameters["state"] not in redirect.location
    assert browser.get(op.authorize(redirect.location, "amina")).location == "/portal/home/"
    assert browser.user() != ""


@pytest.mark.parametrize(("par", "declared"), [("off", "auto"), ("offered", "never")])
def test_request_without_par_passes_through_the_browser(
    par: Any, declared: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.par = par
    declare(settings, op, par=declared)
    redirect = browser.start_sign_in()
    assert {"state", "nonce", "code_challenge"} <= set(query_of(redirect.location))
    assert sent_to(op, "/par") == []
    assert browser.get(op.authorize(redirect.location, "amina")).status == 302


@pytest.mark.parametrize("audience", ["issuer", "token_endpoint"])
def test_private_key_jwt_client_signs_a_new_assertion_for_each_request(
    audience: str, op: DemoProvider, settings: Any, browser: Browser, portal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider fetches the public key from the portal's JWKS URI."""
    register(op, token_endpoint_auth_methods=("private_key_jwt",), jwks_uri=f"{portal}/oidc/jwks.json")
    op.par = "offered"
    monkeypatch.setattr(op.state, "assertion_audiences", (audience,))
    declare(settings, op, **PRIVATE_KEY_JWT_OPTIONS, client_assertion_audience=audience)
    assert browser.sign_in(op).location == "/portal/home/"
    assert browser.user() != ""
    browser.post("/oidc/logout/")
    assert op.active_tokens == []
    authenticated = [request for path in ("/par", "/token", "/revoke") for request in sent_to(op, path)]
    assert [request.path for request in authenticated] == ["/par", "/token", "/revoke", "/revoke"]
    assert {request.auth_method for request in authenticated} == {"private_key_jwt"}
    assert len({request.assertion["jti"] for request in authenticated}) == 4
    expected = {"issuer": op.issuer, "token_endpoint": f"{op.issuer}/token"}[audience]
    assert {request.assertion["aud"] for request in authenticated} == {expected}
    assert {request.assertion["exp"] - request.assertion["iat"] for request in authenticated} == {60}


def test_client_assertion_with_another_audience_is_refused(
    op: DemoProvider, settings: Any, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(op, **PRIVATE_KEY_JWT_CLIENT)
    monkeypatch.setattr(op.state, "assertion_audiences", ("token_endpoint",))
    declare(settings, op, **PRIVATE_KEY_JWT_OPTIONS)
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["token_error"]
    declare(settings, op, **PRIVATE_KEY_JWT_OPTIONS, client_assertion_audience="token_endpoint")
    assert browser.sign_in(op).status == 302


def test_sign_ins_succeed_during_a_client_key_rotation(
    op: DemoProvider, settings: Any, browser: Browser, portal: str
) -> None:
    register(op, token_endpoint_auth_methods=("private_key_jwt",), jwks_uri=f"{portal}/oidc/jwks.json")
    old, new = create_private_key_pem("EC"), create_private_key_pem("OKP")
    signed = []
    for keys in ([old], [old, new], [new, old], [new]):
        declare(settings, op, **{**PRIVATE_KEY_JWT_OPTIONS, "client_keys": keys})
        assert browser.sign_in(op).status == 302
        signed.append(sent_to(op, "/token")[-1].assertion["alg"])
    assert signed == ["ES256", "ES256", "EdDSA", "EdDSA"]


def test_unpublished_client_key_is_refused(op: DemoProvider, settings: Any, browser: Browser) -> None:
    register(op, **PRIVATE_KEY_JWT_CLIENT)
    declare(settings, op, **{**PRIVATE_KEY_JWT_OPTIONS, "client_keys": create_private_key_pem("EC")})
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["token_error"]
    declare(settings, op, **PRIVATE_KEY_JWT_OPTIONS)
    assert browser.sign_in(op).status == 302


@pytest.mark.parametrize(("rotating", "fetches"), [(False, 1), (True, 2)])
def test_userinfo_signed_with_a_new_key_is_accepted_after_one_refetch(
    rotating: bool, fetches: int, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """The portal fetched the keys for the ID Token. The provider rotates them before UserInfo."""

    def rotate(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "userinfo" and rotating:
            op.rotate_keys()

    register(op, userinfo_signed_response_alg="RS256")
    declare(settings, op, userinfo_signed_response_alg=["RS256"])
    op.intercept = rotate
    assert browser.sign_in(op).location == "/portal/home/"
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    assert len(sent_to(op, "/jwks")) == fetches


def test_claims_parameter_requests_claims_without_their_scopes(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """They are not in the ID Token either, which is stored for as long as the session."""
    declare(settings, op, claims_request="parameter")
    issued: list[dict[str, Any]] = []

    def keep(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            issued.append(dict(exchange.claims))

    op.mutate = keep
    assert browser.sign_in(op).status == 302
    assert list(op.last_grant.scope) == ["openid"]
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    assert events(action="claim.overfetched") == []
    assert not {"birthdate", "address"} & set(issued[0])


def test_offline_access_is_requested_with_prompt_consent(op: DemoProvider, settings: Any, browser: Browser) -> None:
    grounds = {"purpose": "TREAT", "basis": "results arrive overnight"}
    declare(settings, op, resource_scopes={"offline_access": grounds})
    redirect = browser.start_sign_in()
    query = query_of(redirect.location)
    assert (query["scope"], query["prompt"]) == (["openid profile address offline_access"], ["consent"])
    assert browser.get(op.authorize(redirect.location, "amina")).status == 302
    assert "offline_access" in op.last_grant.scope
