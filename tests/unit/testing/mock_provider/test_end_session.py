"""The end-session endpoint and back-channel logout."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlencode

import jwt
import pytest

from django_phi_oidc.testing.mock_provider import Client

OUT = "https://portal.example/out/"


def end_session(rp, **parameters):
    return rp.send("GET", f"/end-session?{urlencode(parameters)}")


def test_end_session_with_a_hint_redirects_to_the_client_with_state(op, rp):
    token = rp.tokens()["id_token"]
    answer = end_session(rp, id_token_hint=token, post_logout_redirect_uri=OUT, state="s", client_id="portal")
    assert answer.headers["location"] == f"{OUT}?state=s"
    assert not op.state.sessions
    assert rp.ask(prompt="none").query["error"] == "login_required"


def test_end_session_does_not_revoke_tokens(op, rp):
    tokens = rp.tokens()
    end_session(rp, id_token_hint=tokens["id_token"])
    assert op.is_token_active(tokens["access_token"])


def test_end_session_accepts_an_expired_hint_or_one_with_a_withdrawn_key(op, rp, clock):
    token = rp.tokens()["id_token"]
    clock.ahead += op.state.id_token_lifetime * 2
    op.rotate_keys(withdraw_old_keys=True)
    assert end_session(rp, id_token_hint=token).status == 200
    assert not op.state.sessions


def test_end_session_without_a_hint_asks_for_confirmation(op, rp):
    rp.tokens()
    page = end_session(rp, client_id="portal", post_logout_redirect_uri=OUT)
    assert b"Sign out?" in page.body
    assert op.state.sessions
    csrf = page.body.split(b'name="csrf" value="')[1].split(b'"')[0].decode()
    target = f"/end-session?{urlencode({'client_id': 'portal', 'post_logout_redirect_uri': OUT})}"
    assert b"Sign out?" in rp.send("POST", target, {"csrf": "x", "decision": "sign-out"}).body
    assert op.state.sessions
    answer = rp.send("POST", target, {"csrf": csrf, "decision": "sign-out"})
    assert answer.headers["location"] == OUT
    assert not op.state.sessions


def test_end_session_with_the_hint_of_another_session_asks_for_confirmation(op, rp, rp_of):
    other_hint = rp_of(op=op).tokens()["id_token"]
    rp.tokens()
    assert b"Sign out?" in end_session(rp, id_token_hint=other_hint).body
    assert len(op.state.sessions) == 2


INVALID_PARAMETERS = {
    "unregistered URI": {"client_id": "portal", "post_logout_redirect_uri": f"{OUT}more"},
    "no client": {"post_logout_redirect_uri": OUT},
    "URI of another client": {"client_id": "lab", "post_logout_redirect_uri": OUT},
    "not a token": {"id_token_hint": "nonsense-ü"},
}


@pytest.mark.parametrize("parameters", INVALID_PARAMETERS.values(), ids=INVALID_PARAMETERS)
def test_end_session_with_an_invalid_parameter_shows_an_error_and_ends_no_session(op, rp, parameters):
    rp.tokens()
    answer = end_session(rp, **parameters)
    assert answer.status == 400
    assert "location" not in answer.headers
    assert op.state.sessions


def test_end_session_with_hint_and_client_id_of_different_clients_is_refused(rp):
    token = rp.tokens()["id_token"]
    assert end_session(rp, id_token_hint=token, client_id="lab").status == 400
    assert end_session(rp, id_token_hint=token, client_id="portal").status == 200


def test_end_session_without_a_session_shows_a_page_or_redirects(rp):
    assert b"Signed out" in end_session(rp).body
    assert end_session(rp, client_id="portal", post_logout_redirect_uri=OUT).status == 303


class LogoutServer(HTTPServer):
    """Serves a client's back-channel logout URI and stores the logout tokens."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), LogoutHandler)
        self.tokens: list[str] = []


class LogoutHandler(BaseHTTPRequestHandler):
    server: LogoutServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.tokens += parse_qs(body)["logout_token"]
        self.send_response(200)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Do not log."""


@pytest.fixture
def logout_server() -> Iterator[LogoutServer]:
    with LogoutServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def verify_logout_token(op, token, client_id="lab"):
    key = op.state.keys[op.signing_alg].private_key.public_key()
    return jwt.decode(token, key, algorithms=[op.signing_alg], audience=client_id, issuer=op.issuer)


def create_client_with_backchannel(logout_server):
    uri = f"http://127.0.0.1:{logout_server.server_address[1]}/logout"
    return Client("lab", "lab-secret", ["https://lab.example/cb"], backchannel_logout_uri=uri)


def test_send_backchannel_logout_posts_a_logout_token(op, logout_server):
    op.register_client(create_client_with_backchannel(logout_server))
    answer = op.send_backchannel_logout("lab", sub="someone", sid="some-session", jti="the-jti")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    (token,) = logout_server.tokens
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    claims = verify_logout_token(op, token)
    assert claims["exp"] > claims["iat"]
    assert (claims["sub"], claims["sid"], claims["jti"]) == ("someone", "some-session", "the-jti")
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert "nonce" not in claims


def test_send_backchannel_logout_runs_the_hook(op, logout_server):
    op.register_client(create_client_with_backchannel(logout_server))
    op.mutate = lambda endpoint, exchange: exchange.claims.update(nonce="n") if endpoint == "logout_token" else None
    op.send_backchannel_logout("lab", sub="someone")
    assert verify_logout_token(op, logout_server.tokens[0])["nonce"] == "n"
    assert "sid" not in verify_logout_token(op, logout_server.tokens[0])


def test_send_backchannel_logout_without_sub_and_sid_or_without_uri_raises(op, logout_server):
    with pytest.raises(ValueError, match="no back-channel"):
        op.send_backchannel_logout("lab", sub="someone")
    op.register_client(create_client_with_backchannel(logout_server))
    with pytest.raises(ValueError, match="needs a sub"):
        op.send_backchannel_logout("lab")


def test_end_session_sends_logout_tokens_to_the_other_clients(op, rp, other_rp, logout_server):
    op.register_client(create_client_with_backchannel(logout_server))
    token = rp.tokens()["id_token"]
    other_rp.cookies = rp.cookies
    assert "code" in other_rp.ask().query
    grant = op.last_grant
    end_session(rp, id_token_hint=token)
    (logout_token,) = logout_server.tokens
    assert verify_logout_token(op, logout_token)["sid"] == grant.sid
    assert verify_logout_token(op, logout_token)["sub"] == grant.sub


def test_end_session_succeeds_if_a_client_is_unreachable(op, rp, other_rp, caplog):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    op.register_client(Client("lab", "lab-secret", ["https://lab.example/cb"], backchannel_logout_uri=uri))
    token = rp.tokens()["id_token"]
    other_rp.cookies = rp.cookies
    other_rp.ask()
    assert end_session(rp, id_token_hint=token).status == 200
    assert not op.state.sessions
    assert "could not be sent to client lab" in caplog.text
