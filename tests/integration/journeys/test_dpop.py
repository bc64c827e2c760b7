"""Tokens that are bound to a key of the session: sign-in, refresh, step-up, an API, and what a thief has of them."""

import base64
import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import urllib3
from django.contrib.auth import get_user_model
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.errors import KeyMissing, TokenExpired
from django_phi_oidc.oidc.dpop import create_proof_key
from django_phi_oidc.provider import dpop_requests
from django_phi_oidc.provider.dpop_requests import remember_dpop_nonce
from django_phi_oidc.sessions.access_tokens import get_access_token, get_api_headers
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.attack_cases import PRIVATE_KEY_JWT_OPTIONS
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, SECRET, declaration, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]
PROOF_PATHS = ("/par", "/token", "/userinfo")


@pytest.fixture(autouse=True)
def _no_nonces() -> Iterator[None]:
    dpop_requests._nonces_by_origin.clear()
    yield
    dpop_requests._nonces_by_origin.clear()


@pytest.fixture
def dpop_op(op: DemoProvider, settings: Any) -> DemoProvider:
    """The provider, which requires DPoP of the portal, and the portal requires it of the provider."""
    op.state.dpop = "required"
    declare(settings, op, dpop="require")
    return op


def declare(settings: Any, op: DemoProvider, **options: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}


def row() -> OIDCSession:
    return OIDCSession.objects.get()


def age(seconds: float) -> None:
    OIDCSession.objects.update(access_token_expires_at=clock.now() + timedelta(seconds=seconds))


def parse_proof(proof: str) -> dict[str, Any]:
    """Return the claims, without a verification."""
    payload = proof.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


def proofs(op: DemoProvider, path: str) -> list[dict[str, Any]]:
    """Return the claims of the proofs of all requests to that path."""
    return [parse_proof(request.headers["dpop"]) for request in op.requests if request.path == path]


def redeem(op: DemoProvider, path: str = "/token", **parameters: str) -> tuple[int, dict[str, Any]]:
    """Send a request with the client's own secret, and no proof: that of a thief who has everything but the key."""
    headers = {
        "Authorization": "Basic " + base64.b64encode(f"portal:{urlencode({'': SECRET})[1:]}".encode()).decode("ascii"),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    answer = urllib3.request("POST", f"{op.issuer}{path}", body=urlencode(parameters), headers=headers)
    return answer.status, json.loads(answer.data or b"{}")


@pytest.mark.parametrize("par", ["off", "required"])
def test_sign_in_binds_code_and_tokens_to_a_new_key(par: Any, dpop_op: DemoProvider, browser: Browser) -> None:
    dpop_op.par = par
    redirect = browser.start_sign_in()
    asked = parse_qs(urlsplit(redirect.location).query) if par == "off" else {}
    pushed = [request.parameters["dpop_jkt"] for request in dpop_op.requests if request.path == "/par"]
    (jkt,) = asked["dpop_jkt"] if par == "off" else pushed
    assert browser.get(dpop_op.authorize(redirect.location, "amina")).location == "/portal/home/"
    assert browser.user() != ""
    session = row()
    assert create_proof_key(session.decrypt("dpop_seed")).thumbprint == jkt
    assert {token.dpop_jkt for token in dpop_op.tokens} == {jkt}
    for path in PROOF_PATHS[0 if par == "required" else 1 :]:
        (proof,) = proofs(dpop_op, path)
        assert (proof["htm"], proof["htu"]) == ("GET" if path == "/userinfo" else "POST", f"{dpop_op.issuer}{path}")
        assert ("ath" in proof) is (path == "/userinfo")
    assert [request.authorization for request in dpop_op.requests if request.path == "/userinfo"] == ["DPoP"]
    another = Browser(browser.base_url)
    assert another.sign_in(dpop_op).status == 302
    assert len({token.dpop_jkt for token in dpop_op.tokens}) == 2, "each session has its own key"


def test_end_of_the_session_deletes_the_key_and_revokes_the_tokens(dpop_op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(dpop_op).status == 302
    assert row().dpop_seed is not None
    browser.post("/oidc/logout/")
    assert row().dpop_seed is None
    assert dpop_op.active_tokens == []
    assert [request.headers.get("dpop") for request in dpop_op.requests if request.path == "/revoke"] == [None, None]


def test_nonce_of_the_provider_is_used_after_one_refusal_and_remembered(
    dpop_op: DemoProvider, browser: Browser
) -> None:
    dpop_op.state.dpop_nonce = "first"
    assert browser.sign_in(dpop_op).status == 302
    assert [proof.get("nonce") for proof in proofs(dpop_op, "/token")] == [None, "first"]
    assert [proof.get("nonce") for proof in proofs(dpop_op, "/userinfo")] == ["first"]
    assert len({proof["jti"] for path in PROOF_PATHS for proof in proofs(dpop_op, path)}) == 3
    dpop_op.state.dpop_nonce = "second"
    age(-1)
    assert get_access_token(row().pk)
    assert [proof.get("nonce") for proof in proofs(dpop_op, "/token")][2:] == ["first", "second"]


def test_signed_request_is_new_for_the_attempt_with_the_nonce(
    dpop_op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """RFC 9101 10.2: a provider may accept each request object only once."""
    options = {**PRIVATE_KEY_JWT_OPTIONS, "request_object_signing_alg": "ES256", "par": "require"}
    dpop_op.par = "required"
    declare(settings, dpop_op, dpop="require", **options)

    def answer(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint != "par":
            return None
        if len([request for request in dpop_op.requests if request.path == "/par"]) == 1:
            return Reply(status=400, headers={"DPoP-Nonce": "first"}, json={"error": "use_dpop_nonce"})
        return Reply(status=201, json={"request_uri": "urn:request", "expires_in": 60})

    dpop_op.intercept = answer
    assert browser.start_sign_in().status == 302
    pushed = [request for request in dpop_op.requests if request.path == "/par"]
    objects = [parse_proof(request.parameters["request"]) for request in pushed]
    assert [proof.get("nonce") for proof in proofs(dpop_op, "/par")] == [None, "first"]
    assert len({claims["jti"] for claims in objects}) == 2
    assert len({claims["dpop_jkt"] for claims in objects}) == 1, "both bind the code to the same key"
    assert all("dpop_jkt" not in request.parameters for request in pushed)


def test_nonce_in_a_successful_response_replaces_the_former_one(dpop_op: DemoProvider, browser: Browser) -> None:
    dpop_op.state.dpop_nonce = "first"

    def replace_nonce(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token" and exchange.reply.status == 200:
            exchange.reply.headers["DPoP-Nonce"] = dpop_op.state.dpop_nonce = "next"

    dpop_op.mutate = replace_nonce
    assert browser.sign_in(dpop_op).status == 302
    assert [proof.get("nonce") for proof in proofs(dpop_op, "/userinfo")] == ["next"]


def test_provider_that_refuses_each_nonce_is_asked_only_twice(dpop_op: DemoProvider, browser: Browser) -> None:
    def refuse(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint != "token":
            return None
        return Reply(status=400, headers={"DPoP-Nonce": uuid.uuid4().hex}, json={"error": "use_dpop_nonce"})

    dpop_op.intercept = refuse
    assert browser.sign_in(dpop_op).status == 403
    assert len(proofs(dpop_op, "/token")) == 2
    assert [event.reason for event in events(action="login.refused")] == ["token_error"]


@pytest.mark.parametrize(("dpop", "is_accepted"), [("require", False), ("auto", True)])
def test_bearer_token_is_accepted_by_auto_only(
    dpop: str, is_accepted: bool, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.state.dpop = "offered"
    declare(settings, op, dpop=dpop)

    def downgrade(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            exchange.reply.json["token_type"] = "Bearer"
            for token in op.tokens:
                token.dpop_jkt = ""

    op.mutate = downgrade
    assert browser.sign_in(op).status == (302 if is_accepted else 403)
    if is_accepted:
        assert row().dpop_seed is None
        assert set(get_api_headers(row(), method="GET", url="https://fhir.example/")) == {"Authorization"}
    else:
        assert [event.reason for event in events(action="login.refused")] == ["token_type_unsupported"]
        assert op.active_tokens == []


def test_provider_without_dpop_is_refused_by_require_only(op: DemoProvider, settings: Any, browser: Browser) -> None:
    declare(settings, op, dpop="auto")
    assert browser.sign_in(op).status == 302
    assert row().dpop_seed is None
    declare(settings, op, dpop="require")
    assert Browser(browser.base_url).start_sign_in().status == 403
    assert [event.reason for event in events(action="login.refused")] == ["dpop_unsupported"]


def test_code_without_the_key_is_worth_nothing(dpop_op: DemoProvider, browser: Browser) -> None:
    """The thief has the code, its verifier and the client's secret."""
    callback = browser.get_callback_url(dpop_op)
    code = parse_qs(urlsplit(callback).query)["code"][0]
    grant = dpop_op.last_grant
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": grant.redirect_uri}
    assert redeem(dpop_op, **fields, code_verifier="x")[1]["error"] == "invalid_dpop_proof"
    assert not grant.code_used
    assert browser.get(callback).status == 302, "the portal itself has the key"


def test_stolen_tokens_and_proofs_are_worth_nothing(dpop_op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(dpop_op).status == 302
    session = row()
    url = f"{dpop_op.issuer}/userinfo"
    headers = get_api_headers(session, method="GET", url=url)
    token, refresh_token = session.decrypt("access_token"), session.decrypt("refresh_token")
    assert urllib3.request("GET", url, headers=headers).status == 200
    # The same proof again, the token without it, and both with the other scheme.
    assert urllib3.request("GET", url, headers=headers).status == 401
    assert urllib3.request("GET", url, headers={"Authorization": f"DPoP {token}"}).status == 401
    assert urllib3.request("GET", url, headers={"Authorization": f"Bearer {token}"}).status == 401
    # A proof that was captured elsewhere: for another method, URL or token.
    for method, other in (("POST", url), ("GET", f"{url}/x")):
        captured = get_api_headers(session, method=method, url=other)
        assert urllib3.request("GET", url, headers=captured).status == 401
    assert redeem(dpop_op, grant_type="refresh_token", refresh_token=refresh_token)[1]["error"] == "invalid_dpop_proof"
    assert urllib3.request("GET", url, headers=get_api_headers(session, method="GET", url=url)).status == 200


def test_refreshed_tokens_are_bound_to_the_same_key(dpop_op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(dpop_op).status == 302
    seed, old = row().decrypt("dpop_seed"), row().decrypt("access_token")
    age(-1)
    assert get_access_token(row().pk) not in ("", old)
    assert row().decrypt("dpop_seed") == seed
    assert {token.dpop_jkt for token in dpop_op.tokens} == {create_proof_key(seed).thumbprint}


def test_refreshed_bearer_token_of_a_bound_session_is_refused(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.state.dpop = "offered"
    declare(settings, op, dpop="auto")
    assert browser.sign_in(op).status == 302

    def downgrade(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            exchange.reply.json["token_type"] = "Bearer"

    op.mutate = downgrade
    age(-1)
    with pytest.raises(TokenExpired):
        get_access_token(row().pk)
    assert row().ended_at is None
    # The new tokens are revoked, and with the new refresh token the grant.
    assert PendingRevocation.objects.count() == 2


def test_session_without_a_key_is_not_refreshed_if_dpop_is_required(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    assert browser.sign_in(op).status == 302
    op.state.dpop = "offered"
    declare(settings, op, dpop="require")
    sent = len(op.requests)
    age(-1)
    with pytest.raises(TokenExpired):
        get_access_token(row().pk)
    assert [request.path for request in op.requests[sent:] if request.path == "/token"] == []
    assert len(op.active_tokens) == 2, "its refresh token was not used"


def test_key_that_cannot_be_decrypted_loses_no_token(dpop_op: DemoProvider, browser: Browser, settings: Any) -> None:
    assert browser.sign_in(dpop_op).status == 302
    session = row()
    age(-1)
    sent = len(dpop_op.requests)
    working, settings.PHI_OIDC = settings.PHI_OIDC, override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    with pytest.raises(KeyMissing):
        get_api_headers(session.pk, method="GET", url="https://fhir.example/")
    settings.PHI_OIDC = working
    assert dpop_op.requests[sent:] == []
    assert row().refresh_lease_until is None
    assert get_access_token(session.pk), "the refresh token is still the newest"


def test_step_up_binds_the_new_tokens_to_a_new_key(dpop_op: DemoProvider, browser: Browser, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    browser.headers["Accept"] = "text/html"
    assert browser.sign_in(dpop_op).status == 302
    seed = row().decrypt("dpop_seed")
    leaving = browser.get(browser.get("/strong/").location)
    assert browser.get(dpop_op.authorize(leaving.location, "amina", cookies=browser.provider_cookies)).status == 302
    assert row().decrypt("dpop_seed") not in ("", seed)
    assert dpop_op.tokens[-1].dpop_jkt == create_proof_key(row().decrypt("dpop_seed")).thumbprint


def test_seed_of_the_key_is_in_no_table_cookie_or_log(
    dpop_op: DemoProvider, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    redirect = browser.start_sign_in()
    cookies = dict(browser.cookies)
    assert browser.get(dpop_op.authorize(redirect.location, "amina")).status == 302
    age(-1)
    get_api_headers(row(), method="GET", url="https://fhir.example/")
    session = row()
    places = {"cookies": repr((cookies, browser.cookies)), "log": caplog.text}
    for connection in connections.all():
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                places[f"{connection.alias} {table}"] = repr(cursor.fetchall())
    assert session.session_key_digest in places[f"default {OIDCSession._meta.db_table}"]
    assert [place for place, text in places.items() if session.decrypt("dpop_seed") in text] == []


def test_nonce_of_an_api_is_remembered(dpop_op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(dpop_op).status == 302
    url = f"{dpop_op.issuer}/userinfo"
    dpop_op.state.dpop_nonce = "of-the-api"
    answer = urllib3.request("GET", url, headers=get_api_headers(row(), method="GET", url=url))
    assert (answer.status, remember_dpop_nonce(url, status=answer.status, headers=answer.headers)) == (401, True)
    answer = urllib3.request("GET", url, headers=get_api_headers(row(), method="GET", url=url))
    assert (answer.status, remember_dpop_nonce(url, status=answer.status, headers=answer.headers)) == (200, False)


def test_nonces_of_many_servers_are_bounded() -> None:
    for number in range(dpop_requests.MAX_SERVERS + 1):
        remember_dpop_nonce(f"https://{number}.example/", status=200, headers={"DPoP-Nonce": "n"})
    assert len(dpop_requests._nonces_by_origin) <= dpop_requests.MAX_SERVERS


def test_discarded_tokens_leave_no_key(dpop_op: DemoProvider, browser: Browser, settings: Any) -> None:
    declare(settings, dpop_op, dpop="require", tokens="discard")
    assert browser.sign_in(dpop_op).status == 302
    assert row().dpop_seed is None
    assert get_user_model()._default_manager.count() == 1
