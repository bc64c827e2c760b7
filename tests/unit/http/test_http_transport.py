"""R1 over real sockets. Each refusal is paired with an acceptance that differs in one thing."""

import gzip
import socket
import ssl
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from django_phi_oidc.errors import Code, PhiOidcError, TransportError
from django_phi_oidc.http.http_transport import MAX_BODY_BYTES, HTTPTransport, create_ssl_context
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, Script, Server, answering, chunked, once, reply, serving, silent
from tests.support.tls import CertificateAuthority

Opening = Callable[..., HTTPTransport]


def get(url: str, **headers: str) -> TransportRequest:
    return TransportRequest(method="GET", url=url, headers=headers)


def post(url: str, body: bytes = b"code=secret") -> TransportRequest:
    return TransportRequest(
        method="POST", url=url, headers={"Content-Type": "application/x-www-form-urlencoded"}, body=body
    )


def fetch(transport: HTTPTransport, server: Server, *, timeout_seconds: float = 5.0) -> TransportResponse:
    return transport.send(get(server.url), timeout_seconds=timeout_seconds)


def many_headers(count: int, *, length: int = 1) -> list[str]:
    return [f"X-{number}: {'1' * length}" for number in range(count)]


def resetting(peer: Peer) -> None:
    peer.read()
    peer.reset()


GZIP_BOMB = gzip.compress(b" " * 1_000_000) * 200
"""200 KB, which decompress to 200 MB."""

PAIRS: dict[str, tuple[type[TransportError], Script, Script]] = {
    "redirect": (
        Code.TRANSPORT_REDIRECT,
        once(reply(b"{}", "Location: https://127.0.0.1/", status="302 Found")),
        once(reply(b"{}", "Location: https://127.0.0.1/", status="200 OK")),
    ),
    "redirect-with-same-method": (
        Code.TRANSPORT_REDIRECT,
        once(reply(b"{}", "Location: https://127.0.0.1/", status="307 Temporary Redirect")),
        once(reply(b"{}", "Location: https://127.0.0.1/", status="407 Proxy Authentication Required")),
    ),
    "not-modified": (
        Code.TRANSPORT_REDIRECT,
        once(reply(status="304 Not Modified")),
        once(reply(status="404 Not Found")),
    ),
    "body-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(reply(b" " * (MAX_BODY_BYTES + 1))),
        once(reply(b" " * MAX_BODY_BYTES)),
    ),
    "chunked-body-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(chunked(2 * MAX_BODY_BYTES)),
        once(chunked(MAX_BODY_BYTES)),
    ),
    "endless-body-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(b"HTTP/1.1 200 OK\r\n\r\n", b" " * (MAX_BODY_BYTES + 1)),
        once(b"HTTP/1.1 200 OK\r\n\r\n", b" " * MAX_BODY_BYTES),
    ),
    "header-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(reply(b"{}", "X: " + "x" * 70_000)),
        once(reply(b"{}", "X: " + "x" * 60_000)),
    ),
    "too-many-headers": (
        Code.TRANSPORT_TOO_LARGE,
        once(reply(b"{}", *many_headers(101))),
        once(reply(b"{}", *many_headers(90))),
    ),
    "headers-together-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(reply(b"{}", *many_headers(40, length=2000))),
        once(reply(b"{}", *many_headers(30, length=2000))),
    ),
    "interim-responses-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(b"HTTP/1.1 100 Continue\r\n\r\n" * 3000 + reply()),
        once(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + reply()),
    ),
    "early-hints-over-the-limit": (
        Code.TRANSPORT_TOO_LARGE,
        once(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000 + reply()),
        once(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + reply()),
    ),
    "gzip": (
        Code.TRANSPORT_ENCODING,
        once(reply(gzip.compress(b"{}"), "Content-Encoding: gzip")),
        once(reply(gzip.compress(b"{}"), "Content-Encoding: identity")),
    ),
    "gzip-bomb": (
        Code.TRANSPORT_ENCODING,
        once(reply(GZIP_BOMB, "Content-Encoding: gzip")),
        once(reply(GZIP_BOMB)),
    ),
    "encoded-twice": (
        Code.TRANSPORT_ENCODING,
        once(reply(b"{}", "Content-Encoding: identity", "Content-Encoding: br")),
        once(reply(b"{}", "Content-Encoding: identity", "Content-Language: br")),
    ),
    "gzip-in-transfer": (
        Code.TRANSPORT_ENCODING,
        once(chunked(10).replace(b"chunked", b"gzip, chunked")),
        once(chunked(10)),
    ),
    "reset": (Code.TRANSPORT_UNREACHABLE, resetting, once(reply())),
    "closed-without-a-response": (Code.TRANSPORT_UNREACHABLE, once(b""), once(reply())),
    "closed-within-the-headers": (Code.TRANSPORT_UNREACHABLE, once(reply()[:20]), once(reply())),
    "malformed-header-line": (
        Code.TRANSPORT_UNREACHABLE,
        once(reply(b"{}", "no-colon")),
        once(reply(b"{}", "no-colon:")),
    ),
    "closed-within-the-body": (Code.TRANSPORT_UNREACHABLE, once(reply(b" " * 99)[:-1]), once(reply(b" " * 99))),
    "closed-within-a-chunk": (Code.TRANSPORT_UNREACHABLE, once(chunked(99)[:-20]), once(chunked(99))),
    **{
        f"c4-{name}": (Code.TRANSPORT_UNREACHABLE, once(refused), once(accepted))
        for name, refused, accepted in [
            ("closed-within-the-status-line", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\n\r\n{}"),
            ("closed-after-the-status-line", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n{}"),
            ("closed-after-a-header", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n{}"),
            ("closed-within-a-header", b"HTTP/1.1 200 OK\r\nX: y", b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n{}"),
            ("status-with-underscore", b"HTTP/1.1 2_00 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n{}"),
            ("status-with-sign", b"HTTP/1.1 +200 OK\r\n\r\n{}", b"HTTP/1.1 200\r\n\r\n{}"),
            ("length-with-underscore", reply(b" " * 10).replace(b": 10", b": 1_0"), reply(b" " * 10)),
            ("length-with-sign", reply(b" " * 10).replace(b": 10", b": +10"), reply(b" " * 10)),
            ("length-as-a-word", reply(b" " * 10).replace(b": 10", b": ten"), reply(b" " * 10)),
            ("chunk-size-with-prefix", chunked(5).replace(b"\n5\r", b"\n0x5\r"), chunked(5)),
            ("chunk-size-with-underscore", chunked(16).replace(b"\n10\r", b"\n1_0\r"), chunked(16)),
            ("chunk-size-with-sign", chunked(5).replace(b"\n5\r", b"\n+5\r"), chunked(5)),
            ("chunk-size-with-space", chunked(5).replace(b"\n5\r", b"\n 5\r"), chunked(5).replace(b"5\r", b"5;x=y\r")),
            ("closed-within-the-last-chunk-size", chunked(5)[:-4], chunked(5)),
        ]
    },
    "not-http": (Code.TRANSPORT_UNREACHABLE, once(b"220 mail.example.test ESMTP\r\n\r\n"), once(reply())),
    "two-lengths": (
        Code.TRANSPORT_UNREACHABLE,
        once(reply(b"{}", "Content-Length: 3")),
        once(reply(b"{}", "Content-Length: 2")),
    ),
}


@pytest.mark.parametrize(("error", "refused", "accepted"), PAIRS.values(), ids=PAIRS)
def test_hostile_response_is_refused(
    transport: HTTPTransport,
    tls: ssl.SSLContext,
    error: type[TransportError],
    refused: Script,
    accepted: Script,
) -> None:
    with serving(refused, tls=tls) as server, raises(error):
        fetch(transport, server)
    assert len(server.requests) == 1
    with serving(accepted, tls=tls) as server:
        response = fetch(transport, server)
    assert response.body
    assert response.status >= 200
    assert not 300 <= response.status < 400


@pytest.mark.parametrize("accepts_redirect", [False, True])
def test_redirect_is_only_returned_to_a_request_that_accepts_it_and_never_followed(
    transport: HTTPTransport, tls: ssl.SSLContext, accepts_redirect: bool
) -> None:
    with serving(once(reply(b"{}", "Location: /elsewhere", status="302 Found")), tls=tls) as server:
        request = replace(get(server.url), accepts_redirect=accepts_redirect)
        if accepts_redirect:
            response = transport.send(request, timeout_seconds=5.0)
            assert (response.status, response.headers["location"], response.body) == (302, "/elsewhere", b"")
        else:
            with raises(Code.TRANSPORT_REDIRECT):
                transport.send(request, timeout_seconds=5.0)
    assert len(server.requests) == 1


def test_content_length_over_the_limit_is_refused_before_the_body(
    transport: HTTPTransport, tls: ssl.SSLContext
) -> None:
    def announcing(length: int) -> Script:
        def script(peer: Peer) -> None:
            peer.read()
            peer.send(reply(b" " * length)[:-length])
            peer.connection.recv(1)

        return script

    for length, error in ((MAX_BODY_BYTES + 1, Code.TRANSPORT_TOO_LARGE), (MAX_BODY_BYTES, Code.TRANSPORT_TIMEOUT)):
        with serving(announcing(length), tls=tls) as server, raises(error):
            fetch(transport, server, timeout_seconds=0.5)
        assert len(server.requests) == 1


# transport_not_https


def test_plain_http_is_refused(open_transport: Opening, tls: ssl.SSLContext) -> None:
    with serving(answering(reply())) as server:
        with raises(Code.TRANSPORT_NOT_HTTPS):
            fetch(open_transport(), server)
        assert server.accepted == 0
        assert fetch(open_transport(allow_loopback_http=True), server).status == 200
    with serving(answering(reply()), tls=tls) as server:
        assert fetch(open_transport(), server).status == 200


# transport_tls


def test_untrusted_authority_is_refused(
    transport: HTTPTransport, open_transport: Opening, other_authority: CertificateAuthority
) -> None:
    with serving(answering(reply()), tls=other_authority.create_server_context("127.0.0.1")) as server:
        with raises(Code.TRANSPORT_TLS, match="certificate"):
            fetch(transport, server)
        assert server.requests == []
        assert fetch(open_transport(ca_bundle=other_authority.certificate_path), server).status == 200


def test_authority_unknown_to_the_system_is_refused(open_transport: Opening, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server:
        with raises(Code.TRANSPORT_TLS):
            fetch(open_transport(ca_bundle=""), server)
        assert fetch(open_transport(), server).status == 200


def test_d11_environment_variables_do_not_add_an_authority(
    open_transport: Opening, tls: ssl.SSLContext, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_system = create_ssl_context("").get_ca_certs()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_path))
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(authority.certificate_path).parent))
    assert create_ssl_context("").get_ca_certs() == of_system
    with serving(answering(reply()), tls=tls) as server:
        with raises(Code.TRANSPORT_TLS):
            fetch(open_transport(ca_bundle=""), server)
        assert fetch(open_transport(ca_bundle=authority.certificate_path), server).status == 200


def test_missing_ca_bundle_is_refused(
    open_transport: Opening, tls: ssl.SSLContext, authority: CertificateAuthority
) -> None:
    with serving(answering(reply()), tls=tls) as server:
        with raises(Code.TRANSPORT_TLS, match="ca_bundle"):
            fetch(open_transport(ca_bundle=f"{authority.certificate_path}.missing"), server)
        assert server.accepted == 0
        assert fetch(open_transport(ca_bundle=authority.certificate_path), server).status == 200


def test_expired_certificate_is_refused(transport: HTTPTransport, authority: CertificateAuthority) -> None:
    with (
        serving(answering(reply()), tls=authority.create_server_context("127.0.0.1", expired=True)) as server,
        raises(Code.TRANSPORT_TLS, match="expired"),
    ):
        fetch(transport, server)
    assert server.requests == []
    with serving(answering(reply()), tls=authority.create_server_context("127.0.0.1")) as server:
        assert fetch(transport, server).status == 200


def test_certificate_of_another_host_is_refused(transport: HTTPTransport, authority: CertificateAuthority) -> None:
    with (
        serving(answering(reply()), tls=authority.create_server_context("127.0.0.2")) as server,
        raises(Code.TRANSPORT_TLS, match="mismatch"),
    ):
        fetch(transport, server)
    assert server.requests == []
    with serving(answering(reply()), tls=authority.create_server_context("127.0.0.2", "127.0.0.1")) as server:
        assert fetch(transport, server).status == 200


def test_ssl_context_requires_tls_1_2_and_verification(authority: CertificateAuthority) -> None:
    """The system's OpenSSL may allow more by default."""
    for context in (create_ssl_context(""), create_ssl_context(authority.certificate_path)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_tls_1_1_is_refused(transport: HTTPTransport, authority: CertificateAuthority) -> None:
    for version, accepted in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = authority.create_server_context("127.0.0.1")
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        with serving(answering(reply()), tls=context) as server:
            if accepted:
                assert fetch(transport, server).status == 200
            else:
                with raises(Code.TRANSPORT_TLS):
                    fetch(transport, server)


@pytest.mark.parametrize(
    ("refused", "accepted"),
    [
        ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
)
def test_g13_tls_1_2_with_a_suite_that_bcp_195_does_not_recommend_is_refused(
    refused: str, accepted: str, transport: HTTPTransport, authority: CertificateAuthority
) -> None:
    for suite in (refused, accepted):
        context = authority.create_server_context("127.0.0.1")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        # CCM8 needs the level 0. The context's own suite is the only one.
        context.set_ciphers(f"{suite}@SECLEVEL=0")
        assert [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"] == [suite]
        with serving(answering(reply()), tls=context) as server:
            if suite == accepted:
                assert fetch(transport, server).status == 200
            else:
                with raises(Code.TRANSPORT_TLS):
                    fetch(transport, server)


def test_g13_tls_1_3_is_accepted(transport: HTTPTransport, authority: CertificateAuthority) -> None:
    context = authority.create_server_context("127.0.0.1")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with serving(answering(reply()), tls=context) as server:
        assert fetch(transport, server).status == 200


def test_server_without_tls_is_refused(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with (
        serving(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server,
        raises(Code.TRANSPORT_TLS),
    ):
        transport.send(get(server.url.replace("http:", "https:")), timeout_seconds=5)
    with serving(answering(reply(status="400 Bad Request")), tls=tls) as server:
        assert fetch(transport, server).status == 400


# transport_unreachable


def test_closed_port_is_unreachable(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server:
        assert fetch(transport, server).status == 200
    request = get(f"https://127.0.0.1:{free_port()}/")
    with raises(Code.TRANSPORT_UNREACHABLE):
        transport.send(request, timeout_seconds=5)


def test_unknown_host_name_is_unreachable(transport: HTTPTransport, authority: CertificateAuthority) -> None:
    with serving(answering(reply()), tls=authority.create_server_context("localhost")) as server:
        assert transport.send(get(server.url.replace("127.0.0.1", "localhost")), timeout_seconds=5).status == 200
        with raises(Code.TRANSPORT_UNREACHABLE, match="resolve"):
            transport.send(get(server.url.replace("127.0.0.1", "op.invalid")), timeout_seconds=5)


def test_connection_closed_during_the_handshake_is_unreachable(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with (
        serving(lambda peer: peer.connection.recv(9) and None) as server,
        raises(Code.TRANSPORT_UNREACHABLE),
    ):
        transport.send(get(server.url.replace("http:", "https:")), timeout_seconds=5)
    with serving(answering(reply()), tls=tls) as server:
        assert fetch(transport, server).status == 200


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# requests and responses


def test_request_is_sent_unchanged_but_for_accept_encoding(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server:
        request = TransportRequest(
            method="POST",
            url=f"{server.url}token?a=b",
            headers={"accept-encoding": "gzip", "X-Own": "1"},
            body=b"code=x",
        )
        transport.send(request, timeout_seconds=5)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /token?a=b http/1.1"
    assert [line for line in lines if line.startswith(b"accept-encoding")] == [b"accept-encoding: identity"]
    assert b"x-own: 1" in lines
    assert body == b"code=x"


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "400 Bad Request", "401 Unauthorized", "503 Busy"])
def test_any_status_but_3xx_is_returned(transport: HTTPTransport, tls: ssl.SSLContext, status: str) -> None:
    answer = reply(b"", "Cache-Control: max-age=1", "CACHE-CONTROL: public", "Retry-After: 7", status=status)
    with serving(answering(answer), tls=tls) as server:
        response = fetch(transport, server)
    assert response.status == int(status[:3])
    assert response.headers["cache-control"] == "max-age=1, public"
    assert response.headers["retry-after"] == "7"


def test_error_contains_no_data_of_the_exchange(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    hostile = (once(b"HTTP/1.1 token-of-the-op\r\n\r\n"), resetting, once(reply(b"token-of-the-op")[:-1]), silent)
    for script in hostile:
        with serving(script, tls=tls) as server:
            request = get(f"{server.url}?code=secret", Authorization="Bearer secret")
            with raises(PhiOidcError) as caught:
                transport.send(request, timeout_seconds=0.3)
        report = "".join(traceback.format_exception(caught.value))
        assert "Bearer" not in report
        assert "code=" not in report
        assert "token-of-the-op" not in report


def test_header_with_a_line_break_is_refused(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server:
        broken = get(server.url, Authorization="Bearer a\r\nHost: b")
        with raises(Code.TRANSPORT_UNREACHABLE) as caught:
            transport.send(broken, timeout_seconds=5)
        assert "Bearer" not in "".join(traceback.format_exception(caught.value))
        assert server.requests == []
        assert transport.send(get(server.url, Authorization="Bearer a"), timeout_seconds=5).status == 200
