"""The authorization endpoint. Spec: OIDC Core 3.1.2."""

import json
from datetime import timedelta

import pytest

from django_phi_oidc.testing.mock_provider import RedirectExpected


def test_authorize_without_a_session_shows_the_login_page(rp):
    page = rp.ask()
    assert page.status == 200
    assert b'<label for="password">' in page.body
    assert b"Not for production" in page.body
    assert b"Portal &lt;of&gt; Tests" in page.body
    assert page.headers["cache-control"] == "no-store"


def test_authorize_page_policy_allows_no_scripts_and_forms_only_to_the_client(rp):
    policy = rp.ask().headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self' https://portal.example" in policy
    assert "script-src" not in policy


def test_authorize_page_escapes_request_parameters(rp):
    page = rp.ask(state='"><script>alert(1)</script>', login_hint="'><b>").body
    assert b"<script" not in page
    assert b"<b>" not in page


def test_authorize_with_the_right_password_returns_code_state_and_iss(op, rp):
    assert rp.callback() == {"code": op.last_grant.code, "state": "the-state", "iss": op.issuer}


def test_authorize_keeps_the_query_of_the_redirect_uri(op, rp):
    uri = "https://portal.example/second/?of=two"
    assert op.authorize(rp.url(redirect_uri=uri), "amina").startswith(f"{uri}&code=")


def test_authorize_with_a_wrong_password_shows_the_page_again(op, rp):
    account = op.state.accounts["amina"]
    op.state.accounts["mallory"] = account.__class__("mallory", "guess")
    op.state.accounts["amina"] = account.__class__("amina", "another")
    page = rp.ask()
    csrf = page.body.split(b'name="csrf" value="')[1].split(b'"')[0].decode()
    form = {"csrf": csrf, "username": "amina", "password": "guess", "decision": "sign-in"}
    target = rp.url().removeprefix(op.issuer)
    refused = rp.send("POST", target, form)
    assert refused.status == 403
    assert b'role="alert"' in refused.body
    assert rp.send("POST", target, {**form, "password": "another"}).status == 303


@pytest.mark.parametrize("csrf", ["", "not-the-cookie"])
def test_authorize_form_without_a_valid_csrf_token_is_refused(op, rp, csrf):
    rp.ask()
    form = {"csrf": csrf, "username": "amina", "password": "amina-demo", "decision": "sign-in"}
    assert rp.send("POST", rp.url().removeprefix(op.issuer), form).status == 403
    assert not op.state.sessions


def test_authorize_cancelled_is_access_denied(op, rp):
    location = op.authorize(rp.url(), "amina", decision="cancel")
    assert "error=access_denied" in location
    assert "state=the-state" in location


UNTRUSTED_REDIRECTS = {
    "unknown client": {"client_id": "nobody"},
    "no client": {"client_id": None},
    "unregistered redirect": {"redirect_uri": "https://evil.example/"},
    "longer redirect": {"redirect_uri": "https://portal.example/oidc/callback/more"},
    "redirect in other case": {"redirect_uri": "https://Portal.example/oidc/callback/"},
    "no redirect": {"redirect_uri": None},
    "two redirects": {"redirect_uri": ["https://portal.example/oidc/callback/", "https://evil.example/"]},
    "two clients": {"client_id": ["portal", "lab"]},
}


@pytest.mark.parametrize("changes", UNTRUSTED_REDIRECTS.values(), ids=UNTRUSTED_REDIRECTS)
def test_authorize_with_an_untrusted_redirect_uri_shows_an_error_without_redirect(rp, changes):
    answer = rp.ask(**changes)
    assert answer.status == 400
    assert "location" not in answer.headers


ERRORS = {
    "no response type": ({"response_type": None}, "invalid_request"),
    "implicit": ({"response_type": "id_token"}, "unsupported_response_type"),
    "fragment": ({"response_mode": "fragment"}, "invalid_request"),
    "no scope": ({"scope": None}, "invalid_scope"),
    "no openid": ({"scope": "profile"}, "invalid_scope"),
    "no challenge": ({"code_challenge": None}, "invalid_request"),
    "no challenge method": ({"code_challenge_method": None}, "invalid_request"),
    "plain": ({"code_challenge_method": "plain"}, "invalid_request"),
    "short challenge": ({"code_challenge": "abc"}, "invalid_request"),
    "two nonces": ({"nonce": ["a", "b"]}, "invalid_request"),
    "request object": ({"request": "eyJ"}, "request_not_supported"),
    "request uri": ({"request_uri": "https://x.example"}, "request_uri_not_supported"),
    "none and login": ({"prompt": "none login"}, "invalid_request"),
    "unknown prompt": ({"prompt": "dance"}, "invalid_request"),
    "no session": ({"prompt": "none"}, "login_required"),
    "max_age of words": ({"max_age": "soon"}, "invalid_request"),
    "max_age below zero": ({"max_age": "-1"}, "invalid_request"),
    "claims not JSON": ({"claims": "{"}, "invalid_request"),
    "claims a list": ({"claims": "[]"}, "invalid_request"),
    "claims a deep list": ({"claims": "[" * 5000}, "invalid_request"),
    "claims member a list": ({"claims": '{"userinfo": []}'}, "invalid_request"),
    "claim a string": ({"claims": '{"userinfo": {"email": "yes"}}'}, "invalid_request"),
}


@pytest.mark.parametrize(("changes", "error"), ERRORS.values(), ids=ERRORS)
def test_authorize_with_an_invalid_parameter_redirects_with_an_error(op, rp, changes, error):
    answer = rp.ask(**changes)
    assert answer.status == 303
    assert answer.query["error"] == error
    assert answer.query["state"] == "the-state"
    assert answer.query["iss"] == op.issuer
    assert not op.state.grants


def test_authorize_with_two_states_redirects_without_state(rp):
    answer = rp.ask(state=["a", "b"])
    assert answer.query["error"] == "invalid_request"
    assert "state" not in answer.query


def test_authorize_accepts_post(rp):
    answer = rp.send("POST", "/authorize", rp.parameters())
    assert answer.status == 200
    assert b"<form" in answer.body


def test_authorize_with_a_session_needs_no_login_for_any_client(op, rp, other_rp):
    rp.callback()
    first = op.last_grant
    assert "code" in rp.ask(prompt="none").query
    other_rp.cookies = rp.cookies
    assert "code" in other_rp.ask().query
    assert op.last_grant.sub != first.sub
    assert op.last_grant.sid != first.sid


@pytest.mark.parametrize("prompt", ["login", "consent", "select_account"])
def test_authorize_with_a_prompt_shows_the_login_page_despite_the_session(rp, prompt):
    rp.callback()
    assert rp.ask(prompt=prompt).status == 200


def test_authorize_with_max_age_requires_a_recent_sign_in(op, rp, clock):
    rp.callback()
    before = op.last_grant
    clock.ahead += timedelta(seconds=61)
    assert rp.ask(max_age=90).status == 303
    assert rp.ask(max_age=60).status == 200
    assert rp.ask(max_age=60, prompt="none").query["error"] == "login_required"
    rp.callback(max_age=60)
    assert op.last_grant.auth_time > before.auth_time
    assert op.last_grant.sid == before.sid


def test_authorize_with_voluntary_acr_values_grants_the_reached_acr(op, rp):
    rp.callback()
    assert rp.ask(acr_values="urn:example:loa:2").status == 303
    assert rp.ask(acr_values="urn:example:loa:4").status == 200
    rp.callback(acr_values="urn:example:loa:4")
    assert op.last_grant.acr == "urn:example:loa:2"
    for username in ("amina", "jonas"):
        rp.callback(username, acr_values="urn:example:loa:3")
        assert op.last_grant.acr == "urn:example:loa:3"


def assert_only_jonas_is_accepted(rp, request, error):
    claims = json.dumps({"id_token": request})
    rp.callback()
    assert rp.ask(claims=claims).status == 200
    assert rp.ask(claims=claims, prompt="none").query["error"] == error
    assert rp.callback(claims=claims)["error"] == error
    assert "code" in rp.callback("jonas", claims=claims)
    assert "code" in rp.ask(claims=claims, prompt="none").query


@pytest.mark.parametrize("request_values", [{"values": ["urn:example:loa:3"]}, {"value": "urn:example:loa:3"}])
def test_authorize_with_an_essential_acr_that_is_not_reached_is_refused(rp, request_values):
    acr = {"essential": True, **request_values}
    assert_only_jonas_is_accepted(rp, {"acr": acr}, "unmet_authentication_requirements")


def test_authorize_for_a_sub_refuses_other_users(op, rp):
    assert_only_jonas_is_accepted(rp, {"sub": {"value": op.get_subject("jonas", "portal")}}, "login_required")


def test_authorize_login_hint_fills_the_user_name(rp):
    assert b'name="username" value="amina"' in rp.ask(login_hint="amina").body
    assert b'name="username" value=""' in rp.ask().body


def test_authorize_as_another_user_ends_the_previous_session(op, rp):
    rp.callback()
    rp.callback("jonas", prompt="login")
    assert [session.account.username for session in op.state.sessions.values()] == ["jonas"]


def test_authorize_offline_access_needs_consent(op, rp):
    rp.callback(scope="openid offline_access unheard-of")
    assert op.last_grant.scope == ("openid",)
    rp.callback(scope="openid offline_access", prompt="consent")
    assert op.last_grant.scope == ("openid", "offline_access")


def test_provider_authorize_with_an_unknown_client_raises(op, rp):
    with pytest.raises(RedirectExpected) as raised:
        op.authorize(rp.url(client_id="nobody"), "amina")
    assert raised.value.status == 400
