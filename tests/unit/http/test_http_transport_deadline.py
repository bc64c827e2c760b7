"""`transport_timeout` of R1 over real sockets: dripping exchanges are ended, slow ones within the timeout are not."""

import socket
import ssl
import time
from collections.abc import Callable

import pytest

from django_phi_oidc.errors import Code
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, Script, Server, answering, chunked, reply, serving, silent

Opening = Callable[..., HTTPTransport]


def get(url: str) -> TransportRequest:
    return TransportRequest(method="GET", url=url, headers={})


def fetch(transport: HTTPTransport, server: Server, *, timeout_seconds: float) -> TransportResponse:
    return transport.send(get(server.url), timeout_seconds=timeout_seconds)


def slow_end(data: bytes) -> Script:
    """Send the last five bytes one by one, well within the timeout."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.send(data[:-5])
        peer.drip(data[-5:])

    return script


def dripping(head: bytes, rest: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.read()
        peer.send(head)
        peer.drip(rest)

    return script


DRIPS: dict[str, Script] = {
    "silence": silent,
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 200),
    "interim-responses": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9),
    "early-hints": dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", b" " * 200),
    "body-of-unknown-length": dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" " * 200),
    "chunks": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 40),
    "trailers": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n", b"X: x\r\n" * 40),
}


@pytest.mark.parametrize("plain", [False, True], ids=["tls", "plain"])
@pytest.mark.parametrize("script", DRIPS.values(), ids=DRIPS)
def test_dripping_response_times_out(open_transport: Opening, tls: ssl.SSLContext, script: Script, plain: bool) -> None:
    transport = open_transport(allow_loopback_http=plain)
    with serving(script, tls=None if plain else tls) as server:
        began = time.monotonic()
        with raises(Code.TRANSPORT_TIMEOUT):
            fetch(transport, server, timeout_seconds=0.7)
        assert 0.6 < time.monotonic() - began < 1.0
        assert len(server.requests) == 1


@pytest.mark.parametrize("data", [reply(b" " * 5), reply(b""), chunked(3)], ids=["body", "headers", "chunks"])
def test_slow_response_within_the_timeout_is_accepted(
    transport: HTTPTransport, tls: ssl.SSLContext, data: bytes
) -> None:
    with serving(slow_end(data), tls=tls) as server:
        assert fetch(transport, server, timeout_seconds=2).status == 200


def test_dripping_handshake_times_out(transport: HTTPTransport) -> None:
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(16384)
    with serving(lambda peer: peer.drip(record)) as server:
        began = time.monotonic()
        with raises(Code.TRANSPORT_TIMEOUT):
            transport.send(get(server.url.replace("http:", "https:")), timeout_seconds=0.7)
        assert 0.6 < time.monotonic() - began < 1.0


def test_unanswered_connect_times_out(transport: HTTPTransport) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            began = time.monotonic()
            with raises(Code.TRANSPORT_TIMEOUT):
                transport.send(get(f"https://127.0.0.1:{port}/"), timeout_seconds=0.7)
            assert time.monotonic() - began < 1.0
        finally:
            for client in waiting:
                client.close()


def test_request_without_remaining_time_is_not_sent(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server:
        with raises(Code.TRANSPORT_TIMEOUT):
            fetch(transport, server, timeout_seconds=0)
        assert server.accepted == 0
        assert fetch(transport, server, timeout_seconds=5).status == 200
