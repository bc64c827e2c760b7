"""The end of a session at the provider, and the clients that are told of it."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlencode

import jwt
import pytest

from django_phi_oidc.testing.mock_provider import Client

OUT = "https://portal.example/out/"


def end(rp, **parameters):
    return rp.send("GET", f"/end-session?{urlencode(parameters)}")


def test_end_session_with_the_hint_returns_to_the_client_with_state(op, rp):
    token = rp.tokens()["id_token"]
    answer = end(rp, id_token_hint=token, post_logout_redirect_uri=OUT, state="s", client_id="portal")
    assert answer.headers["location"] == f"{OUT}?state=s"
    assert not op.state.sessions
    assert rp.ask(prompt="none").query["error"] == "login_required"


def test_end_session_leaves_tokens_to_the_client_to_revoke(op, rp):
    tokens = rp.tokens()
    end(rp, id_token_hint=tokens["id_token"])
    assert op.is_token_active(tokens["access_token"])


def test_end_session_takes_a_hint_that_has_expired_or_whose_key_is_withdrawn(op, rp, clock):
    token = rp.tokens()["id_token"]
    clock.ahead += op.state.id_token_lifetime * 2
    op.rotate_keys(withdraw_old_keys=True)
    assert end(rp, id_token_hint=token).status == 200
    assert not op.state.sessions


def test_end_session_without_a_hint_asks_first(op, rp):
    rp.tokens()
    page = end(rp, client_id="portal", post_logout_redirect_uri=OUT)
    assert b"Sign out?" in page.body
    assert op.state.sessions
    csrf = page.body.split(b'name="csrf" value="')[1].split(b'"')[0].decode()
    target = f"/end-session?{urlencode({'client_id': 'portal', 'post_logout_redirect_uri': OUT})}"
    assert b"Sign out?" in rp.send("POST", target, {"csrf": "x", "decision": "sign-out"}).body
    assert op.state.sessions
    answer = rp.send("POST", target, {"csrf": csrf, "decision": "sign-out"})
    assert answer.headers["location"] == OUT
    assert not op.state.sessions


def test_end_session_with_the_hint_of_another_session_asks_first(op, rp, rp_of):
    elsewhere = rp_of(op=op).tokens()["id_token"]
    rp.tokens()
    assert b"Sign out?" in end(rp, id_token_hint=elsewhere).body
    assert len(op.state.sessions) == 2


WRONG = {
    "unregistered address": {"client_id": "portal", "post_logout_redirect_uri": f"{OUT}more"},
    "no client": {"post_logout_redirect_uri": OUT},
    "another client's address": {"client_id": "lab", "post_logout_redirect_uri": OUT},
    "no token": {"id_token_hint": "nonsense-ü"},
}


@pytest.mark.parametrize("parameters", WRONG.values(), ids=WRONG)
def test_end_session_with_one_thing_wrong_is_shown_and_ends_nothing(op, rp, parameters):
    rp.tokens()
    answer = end(rp, **parameters)
    assert answer.status == 400
    assert "location" not in answer.headers
    assert op.state.sessions


def test_end_session_hint_and_client_id_of_different_clients_is_refused(rp):
    token = rp.tokens()["id_token"]
    assert end(rp, id_token_hint=token, client_id="lab").status == 400
    assert end(rp, id_token_hint=token, client_id="portal").status == 200


def test_end_session_when_nobody_is_signed_in_says_so_or_returns(rp):
    assert b"Signed out" in end(rp).body
    assert end(rp, client_id="portal", post_logout_redirect_uri=OUT).status == 303


class Listening(HTTPServer):
    """A client's back-channel logout URI."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Told)
        self.tokens: list[str] = []


class Told(BaseHTTPRequestHandler):
    server: Listening

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.tokens += parse_qs(body)["logout_token"]
        self.send_response(200)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def listening() -> Iterator[Listening]:
    with Listening() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def told(op, token, client_id="lab"):
    key = op.state.keys[op.signing_alg].private_key.public_key()
    return jwt.decode(token, key, algorithms=[op.signing_alg], audience=client_id, issuer=op.issuer)


def with_backchannel(listening):
    uri = f"http://127.0.0.1:{listening.server_address[1]}/told"
    return Client("lab", "lab-secret", ["https://lab.example/cb"], backchannel_logout_uri=uri)


def test_send_backchannel_logout_posts_a_logout_token(op, listening):
    op.register_client(with_backchannel(listening))
    answer = op.send_backchannel_logout("lab", sub="someone", sid="some-session", jti="the-jti")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    (token,) = listening.tokens
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    claims = told(op, token)
    assert claims["exp"] > claims["iat"]
    assert (claims["sub"], claims["sid"], claims["jti"]) == ("someone", "some-session", "the-jti")
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert "nonce" not in claims


def test_send_backchannel_logout_passes_the_hook(op, listening):
    op.register_client(with_backchannel(listening))
    op.mutate = lambda endpoint, exchange: exchange.claims.update(nonce="n") if endpoint == "logout_token" else None
    op.send_backchannel_logout("lab", sub="someone")
    assert told(op, listening.tokens[0])["nonce"] == "n"
    assert "sid" not in told(op, listening.tokens[0])


def test_send_backchannel_logout_about_nobody_or_to_nowhere_raises(op, listening):
    with pytest.raises(ValueError, match="no back-channel"):
        op.send_backchannel_logout("lab", sub="someone")
    op.register_client(with_backchannel(listening))
    with pytest.raises(ValueError, match="needs a sub"):
        op.send_backchannel_logout("lab")


def test_end_session_tells_the_other_clients_of_the_session(op, rp, other_rp, listening):
    op.register_client(with_backchannel(listening))
    token = rp.tokens()["id_token"]
    other_rp.cookies = rp.cookies
    assert "code" in other_rp.ask().query
    grant = op.last_grant
    end(rp, id_token_hint=token)
    (told_token,) = listening.tokens
    assert told(op, told_token)["sid"] == grant.sid
    assert told(op, told_token)["sub"] == grant.sub


def test_end_session_ends_though_a_client_can_not_be_told(op, rp, other_rp, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}/"
    op.register_client(Client("lab", "lab-secret", ["https://lab.example/cb"], backchannel_logout_uri=uri))
    token = rp.tokens()["id_token"]
    other_rp.cookies = rp.cookies
    other_rp.ask()
    assert end(rp, id_token_hint=token).status == 200
    assert not op.state.sessions
    assert "could not be sent to client lab" in caplog.text
