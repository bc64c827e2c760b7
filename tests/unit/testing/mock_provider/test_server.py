"""The server: loopback only, HTTP/1.1 keep-alive, TLS, and a clean stop."""

import gc
import http.client
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from django_phi_oidc.testing.mock_provider import DemoProvider, Reply, create_signing_key, demo_accounts, demo_client


def send_bytes(op, data):
    with socket.create_connection(("127.0.0.1", op.port), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_provider_on_a_non_loopback_address_is_refused(host):
    with pytest.raises(ValueError, match=r"loopback|does not appear"):
        DemoProvider(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.7"])
def test_provider_on_loopback_uses_its_host_in_the_issuer(rp_of, host):
    op = DemoProvider(host=host)
    with op.running():
        assert op.issuer == f"http://{host}:{op.port}"
        assert rp_of(op=op).send("GET", "/.well-known/openid-configuration").json["issuer"] == op.issuer


def test_provider_supports_a_sign_in_over_tls(tls_files, rp_of):
    op = DemoProvider([demo_client("https://portal.example")], demo_accounts(), tls=tls_files)
    with op.running():
        assert op.issuer.startswith("https://127.0.0.1:")
        rp = rp_of(
            op=op,
            client_id="phi-portal",
            secret="demo-secret-not-for-production",
            redirect_uri="https://portal.example/oidc/callback/",
        )
        assert rp.tokens()["token_type"] == "Bearer"
        assert "; Secure" in rp.ask(prompt="login").headers["set-cookie"]


def test_provider_continues_after_a_client_rejects_its_certificate(tls_files, rp_of):
    op = DemoProvider(tls=tls_files)
    with op.running():
        connection = http.client.HTTPSConnection(
            urlsplit(op.issuer).netloc, timeout=5, context=ssl.create_default_context()
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            connection.request("GET", "/jwks")
        connection.close()
        assert rp_of(op=op).send("GET", "/jwks").status == 200


def test_slow_tls_handshake_does_not_block_other_clients(tls_files, rp_of):
    op = DemoProvider(tls=tls_files)
    with op.running(), socket.create_connection(("127.0.0.1", op.port)):
        started = time.monotonic()
        assert rp_of(op=op).send("GET", "/jwks").status == 200
        assert time.monotonic() - started < 2


def test_provider_keeps_connections_open(op):
    connection = http.client.HTTPConnection("127.0.0.1", op.port, timeout=5)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("GET", "/jwks")
        assert connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_two_providers_share_no_state(rp_of):
    portal = demo_client("https://portal.example")
    first, second = (
        DemoProvider([portal], demo_accounts(), keys={"ES256": create_signing_key("ES256")}, signing_alg="ES256")
        for _ in range(2)
    )
    with first.running(), second.running():
        here, there = (
            rp_of(op=op, client_id=portal.client_id, secret=portal.client_secret, redirect_uri=portal.redirect_uris[0])
            for op in (first, second)
        )
        there.cookies = here.cookies
        code = here.callback()["code"]
        assert there.ask(prompt="none").query["error"] == "login_required"
        assert there.redeem(code).json["error"] == "invalid_grant"
        tokens = here.redeem(code).json
        assert (first.is_token_active(tokens["access_token"]), second.is_token_active(tokens["access_token"])) == (
            True,
            False,
        )
        assert here.send("GET", "/jwks").json != there.send("GET", "/jwks").json
        first.mutate = lambda endpoint, exchange: Reply(status=503)
        first.par = "required"
        assert [rp.send("GET", "/jwks").status for rp in (here, there)] == [503, 200]
        assert there.ask().status == 200
    assert first.get_subject("amina", portal.client_id) != second.get_subject("amina", portal.client_id)
    assert [request.path for request in second.requests] == ["/authorize", "/token", "/jwks", "/jwks", "/authorize"]


def test_stopped_provider_closes_sockets_and_keeps_its_state(rp, op, rp_of):
    tokens = rp.tokens()
    issuer = op.issuer
    with socket.create_connection(("127.0.0.1", op.port), timeout=5) as idle:
        idle.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 404")
        op.stop()
        assert idle.recv(1) == b""
    assert not [thread for thread in threading.enumerate() if thread.name == f"demo-provider:{op.port}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", op.port), timeout=1)
    gc.collect()
    op.start()
    assert op.issuer == issuer
    assert rp.send("GET", "/userinfo", headers={"Authorization": f"Bearer {tokens['access_token']}"}).status == 200


def test_provider_can_be_stopped_but_not_started_twice():
    op = DemoProvider()
    with op.running():
        with pytest.raises(RuntimeError, match="running already"):
            op.start()
        op.stop()
    assert op.port


MALFORMED = {
    "length a string": (b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n", b"400"),
    "negative length": (b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
    "chunked": (b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    "too long": (b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n", b"413"),
    "query not UTF-8": (b"GET /authorize?a=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
    "too many fields": (
        b"GET /authorize?" + b"a&" * 200 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"400",
    ),
    "invalid URL": (b"GET http://[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
    "form not ASCII": (
        b"POST /token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n\xff\xff",
        b"400",
    ),
    "not HTTP": (b"hello\r\n\r\n", b"400"),
    "another method": (b"BREW /token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"501"),
}


@pytest.mark.parametrize(("data", "status"), MALFORMED.values(), ids=MALFORMED)
def test_provider_continues_after_a_malformed_request(op, rp, caplog, data, status):
    assert status in send_bytes(op, data).partition(b"\r\n")[0] or b"Error code: " + status in send_bytes(op, data)
    assert rp.send("GET", "/jwks").status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_provider_logs_no_query_strings_secrets_or_tokens(op, rp, caplog):
    caplog.set_level(logging.DEBUG)
    tokens = rp.tokens()
    rp.send("POST", "/revoke", {"token": tokens["refresh_token"]}, rp.basic)
    assert "POST /token: 200" in caplog.text
    for secret in (*tokens.values(), op.last_grant.code, "the-state", rp.secret, "amina-demo"):
        if isinstance(secret, str) and secret not in {"Bearer", "openid"}:
            assert secret not in caplog.text


def test_reprs_hide_secrets_and_tokens(op, rp):
    rp.tokens()
    representation = f"{op.state!r} {op.tokens!r} {op.last_grant!r} {op.requests!r}"
    secrets = [op.last_grant.code, op.last_grant.sub, rp.secret, *(token.value for token in op.tokens), *op.id_tokens]
    assert not [secret for secret in secrets if secret in representation]


def test_main_serves_until_sigterm():
    command = [sys.executable, "-m", "django_phi_oidc.testing.mock_provider", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        issuer = line.split(" at ")[1].split(". ")[0]
        connection = http.client.HTTPConnection(urlsplit(issuer).netloc, timeout=5)
        connection.request("GET", "/jwks")
        assert connection.getresponse().status == 200
        connection.close()
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(timeout=10) == 0
    assert "NOT FOR PRODUCTION" in line
    assert "amina, password: amina-demo" in rest


def test_package_does_not_import_django():
    code = "import sys, django_phi_oidc.testing.mock_provider; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_provider_finds_its_cookie_among_cookies_of_other_ports(rp):
    rp.callback()
    rp.cookies = {"foreign": '{"a": [1, 2]}', "odd name": "\x7f", **rp.cookies}
    assert "code" in rp.ask(prompt="none").query
