"""Hooks can change every reply and every token."""

import http.client
import json
import time
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest

from django_phi_oidc.testing.mock_provider import (
    Client,
    Reply,
    corrupt_signature,
    create_signing_key,
    sign_bytes,
    sign_jwt,
    stream_slowly,
)


def at(hooked_endpoint, change):
    return lambda endpoint, exchange: change(exchange) if endpoint == hooked_endpoint else None


def get_public_key(op):
    return op.state.keys[op.signing_alg].private_key.public_key()


def verify(op, token, **options):
    return jwt.decode(token, get_public_key(op), algorithms=[op.signing_alg], audience="portal", options=options)


def test_mutate_is_called_for_each_endpoint(op, rp):
    calls = []
    op.mutate = lambda endpoint, exchange: calls.append((endpoint, exchange.method, exchange.reply.status))
    token = rp.tokens()["refresh_token"]
    rp.send("GET", "/.well-known/openid-configuration")
    rp.send("GET", "/jwks")
    rp.send("GET", "/userinfo")
    rp.send("POST", "/revoke", {"token": token}, rp.basic)
    rp.send("POST", "/introspect", {"token": token}, rp.basic)
    rp.send("GET", "/end-session")
    rp.send("POST", "/par")
    rp.send("GET", "/nowhere")
    rp.send("GET", "/token")
    assert calls == [
        ("authorize", "GET", 200),
        ("authorize", "POST", 303),
        ("id_token", "POST", 200),
        ("token", "POST", 200),
        ("discovery", "GET", 200),
        ("jwks", "GET", 200),
        ("userinfo", "GET", 401),
        ("revocation", "POST", 200),
        ("introspection", "POST", 200),
        ("end_session", "GET", 200),
        ("par", "POST", 404),
        ("unknown", "GET", 404),
        ("token", "GET", 405),
    ]


def test_mutate_can_change_claims_before_the_signature(op, rp):
    op.mutate = at("id_token", lambda exchange: exchange.claims.update(iss="https://elsewhere.example", exp="soon"))
    claims = verify(op, rp.tokens()["id_token"], verify_exp=False)
    assert (claims["iss"], claims["exp"]) == ("https://elsewhere.example", "soon")
    op.mutate = None
    assert verify(op, rp.tokens()["id_token"])["iss"] == op.issuer


def test_mutate_with_alg_none_creates_an_empty_signature(op, rp):
    op.mutate = at("id_token", lambda exchange: exchange.header.update(alg="none"))
    token = rp.tokens()["id_token"]
    assert token.endswith(".")
    assert jwt.get_unverified_header(token)["alg"] == "none"


def test_mutate_with_alg_hs256_signs_with_the_public_key(op, rp):
    op.mutate = at("id_token", lambda exchange: exchange.header.update(alg="HS256"))
    signing_input, _, signature = rp.tokens()["id_token"].rpartition(".")
    hs256 = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    pem = op.state.keys[op.signing_alg].public_pem()
    assert hs256.verify(signing_input.encode(), pem, jwt.utils.base64url_decode(signature))


def test_mutate_can_sign_with_a_foreign_key_and_a_known_kid(op, rp):
    foreign = create_signing_key("RS256", kid=op.state.keys["RS256"].kid)
    op.mutate = at("id_token", lambda exchange: setattr(exchange, "key", foreign))
    token = rp.tokens()["id_token"]
    with pytest.raises(jwt.InvalidSignatureError):
        verify(op, token)
    jwt.decode(token, foreign.private_key.public_key(), algorithms=["RS256"], audience="portal")


def test_mutate_can_replace_the_id_token(op, rp):
    def damage(exchange):
        exchange.token = corrupt_signature(sign_jwt(exchange.header, exchange.claims, exchange.key))

    op.mutate = at("id_token", damage)
    with pytest.raises(jwt.InvalidSignatureError):
        verify(op, rp.tokens()["id_token"])


def test_mutate_can_change_or_replace_signed_userinfo(op, rp):
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], userinfo_signed_response_alg="RS256"))
    bearer = {"Authorization": f"Bearer {rp.tokens()['access_token']}"}
    op.mutate = at("userinfo_jwt", lambda exchange: exchange.claims.update(sub="another user"))
    assert verify(op, rp.send("GET", "/userinfo", headers=bearer).body)["sub"] == "another user"

    def damage(exchange):
        exchange.token = corrupt_signature(sign_jwt(exchange.header, exchange.claims, exchange.key))

    op.mutate = at("userinfo_jwt", damage)
    with pytest.raises(jwt.InvalidSignatureError):
        verify(op, rp.send("GET", "/userinfo", headers=bearer).body)
    op.mutate = None
    assert verify(op, rp.send("GET", "/userinfo", headers=bearer).body)["sub"] == op.last_grant.sub


def test_sign_bytes_signs_invalid_json(op):
    key = op.state.keys["ES256"]
    token = sign_bytes(b'{"alg":"ES256","alg":"none"}', b"not JSON", key)
    signing_input, _, signature = token.rpartition(".")
    es256 = jwt.algorithms.get_default_algorithms()["ES256"]
    raw = jwt.utils.base64url_decode(signature)
    assert es256.verify(signing_input.encode(), key.private_key.public_key(), raw)


def test_mutate_must_not_return_a_reply_at_a_token_stage(op, rp, caplog):
    op.mutate = at("id_token", lambda exchange: Reply())
    with pytest.raises(http.client.RemoteDisconnected):
        rp.tokens()
    assert "does not return a reply" in caplog.text


def test_mutate_can_change_json_status_headers_and_body(op, rp):
    op.mutate = at("jwks", lambda exchange: exchange.reply.json.update(keys="none"))
    assert rp.send("GET", "/jwks").json == {"keys": "none"}

    def send_html(exchange):
        exchange.reply.json, exchange.reply.body, exchange.reply.status = None, b"<html>", 502
        exchange.reply.headers["Content-Encoding"] = "gzip"

    op.mutate = at("jwks", send_html)
    answer = rp.send("GET", "/jwks")
    assert (answer.status, answer.body, answer.headers["content-encoding"]) == (502, b"<html>", "gzip")


def test_mutate_can_return_a_reply(op, rp):
    op.mutate = at("userinfo", lambda exchange: Reply(status=599, json=["busy"]))
    answer = rp.send("GET", "/userinfo")
    assert (answer.status, answer.json) == (599, ["busy"])


def test_mutate_can_repeat_and_omit_callback_parameters(op, rp):
    def change(exchange):
        exchange.reply.query |= {"iss": ["https://a.example", "https://b.example"]}
        exchange.reply.query.pop("code", None)

    op.mutate = at("authorize", change)
    query = parse_qsl(urlsplit(op.authorize(rp.url(), "amina")).query)
    assert query == [("iss", "https://a.example"), ("iss", "https://b.example"), ("state", "the-state")]


def test_mutate_can_delay_a_reply(op, rp):
    code = rp.callback()["code"]
    op.mutate = at("token", lambda exchange: time.sleep(0.3))
    started = time.monotonic()
    assert rp.redeem(code).status == 200
    assert time.monotonic() - started >= 0.3


def test_mutate_can_drop_the_connection_or_send_raw_bytes(op, rp):
    op.mutate = at("jwks", lambda exchange: setattr(exchange.reply, "raw", ()))
    with pytest.raises(http.client.RemoteDisconnected):
        rp.send("GET", "/jwks")
    op.mutate = at("jwks", lambda exchange: setattr(exchange.reply, "raw", [b"SSH-2.0-", b"nonsense\r\n"]))
    with pytest.raises(http.client.BadStatusLine):
        rp.send("GET", "/jwks")


def test_mutate_can_stream_slowly(op, rp):
    def stream(exchange):
        exchange.reply.raw = stream_slowly(Reply(json={"keys": []}), pause_seconds=0.01, chunk_size=16)

    op.mutate = at("jwks", stream)
    started = time.monotonic()
    assert rp.send("GET", "/jwks").json == {"keys": []}
    assert time.monotonic() - started >= 0.05


def test_intercept_replies_before_the_endpoint_runs(op, rp):
    token = rp.tokens()["refresh_token"]
    op.intercept = at("revocation", lambda exchange: Reply(status=503, headers={"Retry-After": "1"}))
    answer = rp.send("POST", "/revoke", {"token": token}, rp.basic)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert op.is_token_active(token)
    op.intercept = None
    assert rp.send("POST", "/revoke", {"token": token}, rp.basic).status == 200
    assert not op.is_token_active(token)


def test_request_log_contains_no_secrets(op, rp):
    form = rp.code_form(rp.callback()["code"], client_id=rp.client_id, client_secret=rp.secret)
    rp.send("POST", "/token", form)
    rp.send("POST", "/token", rp.code_form("x"), rp.basic)
    assert [(request.method, request.path) for request in op.requests] == [
        ("GET", "/authorize"),
        ("POST", "/authorize"),
        ("POST", "/token"),
        ("POST", "/token"),
    ]
    assert op.requests[-1].authorization == "Basic"
    assert [request.auth_method for request in op.requests] == ["", "", "client_secret_post", "client_secret_basic"]
    logged = json.dumps(
        [[dict(request.parameters), dict(request.headers)] for request in op.requests], ensure_ascii=False
    )
    assert rp.secret not in logged
    assert rp.secret not in str([request.request_target for request in op.requests])
    assert "amina-demo" not in logged
    assert rp.basic["Authorization"] not in logged


def test_request_log_contains_unmodified_targets(op, rp):
    rp.send("GET", "/jwks?a=%41&a=b")
    rp.send("POST", "/nowhere?code=c", {"token": "t"})
    assert [request.request_target for request in op.requests] == ["/jwks?a=%41&a=b", "/nowhere?code=c"]


def test_provider_stores_all_id_tokens(op, rp):
    first = rp.tokens()
    assert op.id_tokens == [first["id_token"]]
    again = rp.send(
        "POST", "/token", {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}, rp.basic
    )
    assert op.id_tokens == [first["id_token"], again.json["id_token"]]
