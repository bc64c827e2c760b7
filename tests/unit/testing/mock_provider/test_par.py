"""Pushed authorization requests. Spec: RFC 9126."""

from datetime import timedelta
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from django_phi_oidc.testing.mock_provider import RedirectExpected, Reply

URN = "urn:ietf:params:oauth:request_uri:"


@pytest.fixture
def par_op(op):
    op.par = "offered"
    return op


def metadata(rp):
    return rp.send("GET", "/.well-known/openid-configuration").json


def open_request_uri(rp, request_uri, **more):
    return rp.send("GET", f"/authorize?{urlencode({'client_id': rp.client_id, 'request_uri': request_uri, **more})}")


def test_par_off_is_not_found_and_not_in_the_metadata(op, rp):
    assert rp.push().status == 404
    assert not [name for name in metadata(rp) if "pushed" in name]


@pytest.mark.parametrize(("par", "required"), [("offered", False), ("required", True)])
def test_par_on_is_in_the_metadata(op, rp, par, required):
    op.par = par
    assert metadata(rp)["pushed_authorization_request_endpoint"] == f"{op.issuer}/par"
    assert metadata(rp)["require_pushed_authorization_requests"] is required


def test_pushed_request_is_granted_and_not_visible_in_the_browser(par_op, rp):
    pushed = rp.push(scope="openid email", login_hint="amina")
    assert pushed.status == 201
    assert pushed.headers["cache-control"] == "no-store"
    assert pushed.json["expires_in"] == 60
    assert pushed.json["request_uri"].startswith(URN)
    callback = dict(parse_qsl(urlsplit(par_op.authorize(rp.pushed_url(pushed.json["request_uri"]), "amina")).query))
    assert callback == {"code": par_op.last_grant.code, "state": "the-state", "iss": par_op.issuer}
    assert par_op.last_grant.scope == ("openid", "email")
    assert rp.redeem(callback["code"]).status == 200
    names = [set(request.parameters) for request in par_op.requests if request.path == "/authorize"]
    assert names == [{"client_id", "request_uri"}, {"client_id", "request_uri", "username", "decision"}]


def test_par_login_page_is_shown_again_after_a_wrong_password(par_op, rp):
    page = open_request_uri(rp, rp.push(login_hint="amina").json["request_uri"])
    assert b'name="username" value="amina"' in page.body
    assert "form-action 'self' https://portal.example" in page.headers["content-security-policy"]
    for password, status in (("wrong", 403), ("amina-demo", 303)):
        action = page.body.split(b'action="')[1].split(b'"')[0].decode().replace("&amp;", "&")
        csrf = page.body.split(b'name="csrf" value="')[1].split(b'"')[0].decode()
        form = {"csrf": csrf, "username": "amina", "password": password, "decision": "sign-in"}
        assert set(parse_qs(urlsplit(action).query)) == {"client_id", "request_uri"}
        before, page = action, rp.send("POST", action, form)
        assert page.status == status
        assert rp.send("POST", before, form).status == 400


def test_par_login_page_is_valid_for_ten_minutes(par_op, rp, clock):
    for minutes, status in ((9, 303), (10, 400)):
        page = open_request_uri(rp, rp.push(prompt="login").json["request_uri"])
        clock.ahead += timedelta(minutes=minutes)
        action = page.body.split(b'action="')[1].split(b'"')[0].decode().replace("&amp;", "&")
        csrf = page.body.split(b'name="csrf" value="')[1].split(b'"')[0].decode()
        form = {"csrf": csrf, "username": "amina", "password": "amina-demo", "decision": "sign-in"}
        assert rp.send("POST", action, form).status == status


def test_par_request_uri_is_accepted_once(par_op, rp):
    rp.callback()
    request_uri = rp.push().json["request_uri"]
    assert "code" in open_request_uri(rp, request_uri).query
    again = open_request_uri(rp, request_uri)
    assert again.status == 400
    assert "location" not in again.headers


@pytest.mark.parametrize(("seconds", "status"), [(59, 303), (60, 400)])
def test_par_request_uri_expires(par_op, rp, clock, seconds, status):
    rp.callback()
    request_uri = rp.push().json["request_uri"]
    clock.ahead += timedelta(seconds=seconds)
    assert open_request_uri(rp, request_uri).status == status


def test_par_request_uri_of_another_client_is_refused_without_using_it(par_op, rp, other_rp):
    rp.callback()
    request_uri = rp.push().json["request_uri"]
    assert open_request_uri(other_rp, request_uri).status == 400
    assert open_request_uri(rp, f"{URN}nonsense").status == 400
    assert rp.send("GET", f"/authorize?{urlencode({'request_uri': request_uri})}").status == 400
    assert open_request_uri(rp, request_uri).status == 303


def test_par_ignores_parameters_next_to_the_request_uri(par_op, rp):
    rp.callback()
    answer = open_request_uri(rp, rp.push().json["request_uri"], state="forged", redirect_uri="https://evil.example/")
    assert answer.headers["location"].startswith(rp.redirect_uri)
    assert answer.query["state"] == "the-state"


def test_par_required_refuses_a_request_that_was_not_pushed(op, rp):
    assert rp.ask().status == 200
    op.par = "offered"
    assert rp.ask().status == 200
    op.par = "required"
    answer = rp.ask()
    assert (answer.query["error"], answer.query["state"]) == ("invalid_request", "the-state")
    assert open_request_uri(rp, rp.push().json["request_uri"]).status == 200


def test_par_offered_refuses_other_request_uris(par_op, rp):
    assert rp.ask(request_uri="https://x.example").query["error"] == "request_uri_not_supported"


INVALID_PARAMETERS = {
    "request uri": ({"request_uri": f"{URN}x"}, "invalid_request"),
    "request object": ({"request": "eyJ"}, "request_not_supported"),
    "no client": ({"client_id": None}, "invalid_request"),
    "unregistered redirect": ({"redirect_uri": "https://evil.example/"}, "invalid_request"),
    "no redirect": ({"redirect_uri": None}, "invalid_request"),
    "implicit": ({"response_type": "id_token"}, "unsupported_response_type"),
    "no openid": ({"scope": "profile"}, "invalid_scope"),
    "no challenge": ({"code_challenge": None}, "invalid_request"),
    "plain": ({"code_challenge_method": "plain"}, "invalid_request"),
    "claims not JSON": ({"claims": "{"}, "invalid_request"),
}


@pytest.mark.parametrize(("changes", "error"), INVALID_PARAMETERS.values(), ids=INVALID_PARAMETERS)
def test_par_with_an_invalid_parameter_is_refused(par_op, rp, changes, error):
    answer = rp.push(**changes)
    assert (answer.status, answer.json["error"]) == (400, error)
    assert not par_op.state.pushed_requests


def test_par_requires_client_authentication(par_op, rp, other_rp):
    assert rp.push(headers={}).status == 401
    assert rp.push(headers=other_rp.basic).json["error"] == "invalid_client"
    assert rp.push(headers={}, client_secret=rp.secret).status == 201
    assert "client_secret" not in next(iter(par_op.state.pushed_requests.values())).parameters
    assert rp.send("GET", "/par").status == 405


def test_par_runs_the_hooks(par_op, rp):
    par_op.intercept = lambda endpoint, exchange: Reply(status=503) if endpoint == "par" else None
    assert rp.push().status == 503
    assert not par_op.state.pushed_requests
    par_op.intercept = None

    def replace_request_uri(endpoint, exchange):
        if endpoint == "par":
            exchange.reply.json["request_uri"] = f"{URN}unknown"

    par_op.mutate = replace_request_uri
    with pytest.raises(RedirectExpected):
        par_op.authorize(rp.pushed_url(rp.push().json["request_uri"]), "amina")
