"""The authorization code is sent once: never again after a timeout, a reset or a broken connection."""

import ssl
import time

import pytest

from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, Script, Server, reply, serving

CODE = b"grant_type=authorization_code&code=a-code&redirect_uri=https%3A%2F%2Fportal.test%2F&code_verifier=v"


def send_code(transport: HTTPTransport, server: Server) -> int:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = TransportRequest(method="POST", url=f"{server.url}token", headers=headers, body=CODE)
    return transport.send(request, timeout_seconds=0.4).status


def fetch(transport: HTTPTransport, server: Server) -> int:
    return transport.send(TransportRequest(method="GET", url=server.url, headers={}), timeout_seconds=5).status


def wait(peer: Peer) -> None:
    peer.connection.recv(1)


FAILURES: dict[str, tuple[type[TransportError], Script]] = {
    "no answer": (Code.TRANSPORT_TIMEOUT, wait),
    "a dripping answer": (Code.TRANSPORT_TIMEOUT, lambda peer: peer.drip(reply(b" " * 99))),
    "dripping interim answers": (
        Code.TRANSPORT_TIMEOUT,
        lambda peer: peer.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9),
    ),
    "a reset": (Code.TRANSPORT_UNREACHABLE, Peer.reset),
    "a close": (Code.TRANSPORT_UNREACHABLE, lambda peer: None),
    "a close during the answer": (Code.TRANSPORT_UNREACHABLE, lambda peer: peer.send(reply(b" " * 99)[:-9])),
    "a redirect with the same method": (
        TransportError,
        lambda peer: peer.send(reply(b"", "Location: /token", status="307 Temporary Redirect")),
    ),
    "a redirect with Retry-After": (
        TransportError,
        lambda peer: peer.send(reply(b"", "Location: /token", "Retry-After: 0", status="308 Permanent Redirect")),
    ),
}


@pytest.mark.parametrize("pooled", [False, True], ids=["a new connection", "a pooled connection"])
@pytest.mark.parametrize(("error", "failure"), FAILURES.values(), ids=FAILURES)
def test_code_is_sent_once_after_any_failure(
    transport: HTTPTransport, tls: ssl.SSLContext, error: type[TransportError], failure: Script, pooled: bool
) -> None:
    def script(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            if request.startswith(b"POST"):
                failure(peer)
                return
            peer.send(reply())

    with serving(script, tls=tls) as server:
        if pooled:
            assert fetch(transport, server) == 200
        with raises(error):
            send_code(transport, server)
        assert server.accepted == 1
        # The connection is closed, so nothing can send the code again.
        assert fetch(transport, server) == 200
        assert sum(CODE in request for request in server.requests) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "408 Request Timeout"])
def test_retry_after_does_not_send_the_code_again(transport: HTTPTransport, tls: ssl.SSLContext, status: str) -> None:
    def script(peer: Peer) -> None:
        while peer.read() is not None:
            peer.send(reply(b"", "Retry-After: 0", status=status))

    with serving(script, tls=tls) as server:
        assert send_code(transport, server) == int(status[:3])
        time.sleep(0.05)
        assert len(server.requests) == 1


def test_get_on_a_broken_pooled_connection_is_sent_again(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    """The counterpart: the same failure of a request that may be repeated."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.send(reply())
        peer.read()

    with serving(script, tls=tls) as server:
        assert [fetch(transport, server), fetch(transport, server)] == [200, 200]
        assert len(server.requests) == 3
