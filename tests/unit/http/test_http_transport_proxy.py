"""R1 over real sockets: the proxy comes from the declaration alone, and sees only the host."""

import base64
import select
import socket
import ssl
import time
from collections.abc import Callable

import pytest

from django_phi_oidc.errors import Code, DeclarationInvalid, TransportError
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, Script, Server, answering, once, reply, serving
from tests.support.tls import CertificateAuthority

Opening = Callable[..., HTTPTransport]


def send(transport: HTTPTransport, server: Server, method: str = "GET", *, timeout_seconds: float = 5.0) -> int:
    body = b"code=x" if method == "POST" else None
    return transport.send(
        TransportRequest(method=method, url=server.url, headers={}, body=body), timeout_seconds=timeout_seconds
    ).status


def tunnelling(*, proxy_answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", slow: bool = False) -> Script:
    """Return a proxy's script: CONNECT, then bytes both ways. slow: send those to the client one by one."""

    def script(peer: Peer) -> None:
        request = peer.read()
        assert request is not None
        host, _, port = request.split(b" ")[1].partition(b":")
        with socket.create_connection((host.decode(), int(port))) as upstream:
            peer.send(proxy_answer)
            ends = {peer.connection: upstream, upstream: peer.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if slow and end is upstream:
                        peer.drip(data)
                    else:
                        ends[end].sendall(data)

    return script


def test_proxy_sees_only_the_host(open_transport: Opening, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server, serving(tunnelling()) as proxy:
        transport = open_transport(proxy=proxy.url.replace("//", "//us%40er:pass@"))
        assert [send(transport, server, "POST"), send(transport, server)] == [200, 200]
        assert proxy.accepted == server.accepted == 1
        assert len(proxy.requests) == 1
        assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{server.port} ".encode())
        assert base64.b64encode(b"us@er:pass") in proxy.requests[0]
        assert b"roxy-" not in b"".join(server.requests)


def test_provider_certificate_is_verified_through_a_proxy(
    open_transport: Opening, other_authority: CertificateAuthority
) -> None:
    with (
        serving(answering(reply()), tls=other_authority.create_server_context("127.0.0.1")) as server,
        serving(tunnelling()) as proxy,
    ):
        with raises(Code.TRANSPORT_TLS):
            send(open_transport(proxy=proxy.url), server)
        assert send(open_transport(proxy=proxy.url, ca_bundle=other_authority.certificate_path), server) == 200


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (once(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), Code.TRANSPORT_UNREACHABLE),
        (once(b""), Code.TRANSPORT_UNREACHABLE),
        (tunnelling(proxy_answer=b""), Code.TRANSPORT_TIMEOUT),
        (lambda peer: peer.drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200), Code.TRANSPORT_TIMEOUT),
    ],
    ids=["refusing", "closing", "silent", "dripping"],
)
def test_proxy_that_opens_no_tunnel_is_an_error(
    open_transport: Opening, tls: ssl.SSLContext, script: Script, error: type[TransportError]
) -> None:
    with serving(answering(reply()), tls=tls) as server, serving(script) as proxy:
        began = time.monotonic()
        with raises(error):
            send(open_transport(proxy=proxy.url), server, timeout_seconds=0.7)
        assert time.monotonic() - began < 1.0
        assert server.requests == []


@pytest.mark.parametrize(
    ("proxy_script", "script"),
    [
        (tunnelling(slow=True), answering(reply())),
        (tunnelling(), lambda peer: peer.read() and peer.drip(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 200)),
    ],
    ids=["handshake", "answer"],
)
def test_dripping_tunnel_times_out(
    open_transport: Opening, tls: ssl.SSLContext, proxy_script: Script, script: Script
) -> None:
    with serving(script, tls=tls) as server, serving(proxy_script) as proxy:
        began = time.monotonic()
        with raises(Code.TRANSPORT_TIMEOUT):
            send(open_transport(proxy=proxy.url), server, timeout_seconds=0.7)
        assert 0.6 < time.monotonic() - began < 1.0
        assert proxy.accepted == 1


def test_declared_proxy_of_unknown_scheme_is_refused(open_transport: Opening) -> None:
    with raises(DeclarationInvalid, match="proxy"):
        open_transport(proxy="socks5://127.0.0.1:1")


def test_proxy_variables_and_netrc_are_not_read(
    transport: HTTPTransport,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(home / "keys"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    with serving(answering(reply()), tls=tls) as server:
        assert send(transport, server) == 200
    assert b"authorization" not in server.requests[0].lower()
    assert not (home / "keys").exists()


@pytest.mark.parametrize(("is_followed", "connections"), [(False, 1), (True, 3)])
def test_tunnel_with_unread_bytes_is_not_reused(
    open_transport: Opening, tls: ssl.SSLContext, is_followed: bool, connections: int
) -> None:
    """TLS inside TLS buffers bytes at two places. See test_connection_with_unread_bytes_is_not_reused."""
    honest = reply(b"honest")
    answer = honest.ljust(8192) + reply(b"planted") if is_followed else honest
    with serving(answering(answer, honest), tls=tls) as server, serving(tunnelling(), tls=tls) as proxy:
        transport = open_transport(proxy=proxy.url)
        request = TransportRequest(method="POST", url=server.url, headers={}, body=b"code=x")
        answers = [transport.send(request, timeout_seconds=5).body for _ in range(3)]
        assert answers == [b"honest"] * 3
        assert server.accepted == connections
