"""Connection pool tests (R1) over real sockets: reuse, retries and forks."""

import contextlib
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.connection_pool import TimedConnectionPool, TimedExchange
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, Server, answering, once, reply, serving
from tests.support.tls import CertificateAuthority

Opening = Callable[..., HTTPTransport]


def send(transport: HTTPTransport, server: Server, method: str = "GET", *, timeout_seconds: float = 5.0) -> int:
    body = b"code=x" if method == "POST" else None
    return transport.send(
        TransportRequest(method=method, url=server.url, headers={}, body=body), timeout_seconds=timeout_seconds
    ).status


def methods(server: Server) -> list[str]:
    return [request.split(b" ")[0].decode() for request in server.requests]


@pytest.mark.parametrize("body", [b"{}", b""])
def test_connection_is_reused(transport: HTTPTransport, tls: ssl.SSLContext, body: bytes) -> None:
    with serving(answering(reply(body)), tls=tls) as server:
        assert [send(transport, server), send(transport, server, "POST"), send(transport, server)] == [200] * 3
        assert server.accepted == 1
    assert methods(server) == ["GET", "POST", "GET"]


def test_connection_is_not_reused_after_connection_close(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(answering(reply(b"{}", "Connection: close")), tls=tls) as server:
        assert [send(transport, server), send(transport, server)] == [200, 200]
        assert server.accepted == 2


@pytest.mark.parametrize(("is_followed", "connections"), [(False, 1), (True, 3)])
def test_connection_with_unread_bytes_is_not_reused(
    transport: HTTPTransport, tls: ssl.SSLContext, is_followed: bool, connections: int
) -> None:
    """http.client reads 8192 bytes at once. Bytes that TLS decrypted after them would answer the next request."""
    honest = reply(b"honest")
    answer = honest.ljust(8192) + reply(b"planted") if is_followed else honest
    with serving(answering(answer, honest), tls=tls) as server:
        request = TransportRequest(method="POST", url=server.url, headers={}, body=b"code=x")
        answers = [transport.send(request, timeout_seconds=5).body for _ in range(3)]
        assert answers == [b"honest"] * 3
        assert server.accepted == connections


def test_connection_is_not_reused_after_a_timeout(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    def dripping_at_second(peer: Peer) -> None:
        while peer.read() is not None:
            if len(server.requests) == 2:
                peer.drip(reply(b" " * 200))
            peer.send(reply())

    with serving(dripping_at_second, tls=tls) as server:
        assert send(transport, server) == 200
        began = time.monotonic()
        with raises(Code.TRANSPORT_TIMEOUT):
            send(transport, server, timeout_seconds=0.3)
        assert time.monotonic() - began < 0.6
        assert server.accepted == 1
        assert [send(transport, server), send(transport, server)] == [200, 200]
        assert server.accepted == 2


def test_connection_is_not_reused_after_a_refused_response(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    unread = reply(b" " * 2_000_000)
    with serving(answering(unread, reply()), tls=tls) as server:
        with raises(TransportError):
            send(transport, server)
        server.script = answering(reply())
        assert send(transport, server) == 200
        assert server.accepted == 2


def test_earlier_deadline_does_not_end_a_later_exchange(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    def slow_at_second(peer: Peer) -> None:
        while peer.read() is not None:
            time.sleep(0.6 if len(server.requests) == 2 else 0)
            peer.send(reply())

    with serving(slow_at_second, tls=tls) as server:
        assert send(transport, server, timeout_seconds=0.4) == 200
        assert send(transport, server, timeout_seconds=5) == 200
        assert server.accepted == 1


def test_exchange_can_require_a_new_connection() -> None:
    with serving(answering(reply())) as server, TimedConnectionPool("127.0.0.1", server.port) as pool:
        for requires_new in (False, True):
            with TimedExchange(5) as exchange:
                connection = pool._get_conn()
                connection.connect()
                pool._put_conn(connection)
                exchange.requires_new_connection = requires_new
                assert pool._get_conn().is_closed is requires_new
                assert exchange.is_connection_reused is not requires_new
                connection.close()
                pool._put_conn(connection)


def test_expired_connection_is_not_pooled() -> None:
    with serving(answering(reply())) as server, TimedConnectionPool("127.0.0.1", server.port) as pool:
        with TimedExchange(5):
            pooled = pool._get_conn()
            pooled.connect()
            pool._put_conn(pooled)
        with TimedExchange(0.05):
            assert pool._get_conn() is pooled
            time.sleep(0.1)
            pool._put_conn(pooled)
        assert pooled.is_closed
        with TimedExchange(5):
            assert pool._get_conn() is not pooled


def test_send_starts_no_thread_per_request(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(answering(reply()), tls=tls) as server:
        assert send(transport, server, timeout_seconds=60) == 200
        before = set(threading.enumerate())
        assert [send(transport, server, timeout_seconds=60) for _ in range(3)] == [200] * 3
        assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pooled_connection_closed_by_the_provider_is_not_used(
    transport: HTTPTransport, tls: ssl.SSLContext, method: str
) -> None:
    with serving(once(reply()), tls=tls) as server:
        assert send(transport, server, "GET") == 200
        assert server.closed.acquire(timeout=5)
        assert send(transport, server, method) == 200
        assert server.accepted == 2
    assert methods(server) == ["GET", method]


def closing_at_second(peer: Peer) -> None:
    """Read a second request on the same connection and close it: the provider closed an idle connection meanwhile."""
    peer.read()
    peer.send(reply())
    peer.read()


def test_get_on_a_broken_pooled_connection_is_retried_once(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(closing_at_second, tls=tls) as server:
        assert [send(transport, server), send(transport, server)] == [200, 200]
        assert server.accepted == 2
    assert methods(server) == ["GET", "GET", "GET"]


def test_retried_get_uses_a_new_connection(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    both = threading.Barrier(2, timeout=5)

    def breaking_in_pairs(peer: Peer) -> None:
        pair = server.accepted <= 2
        peer.read()
        if pair:
            both.wait()
        peer.send(reply())
        peer.read()

    with serving(breaking_in_pairs, tls=tls) as server:
        threads = [threading.Thread(target=send, args=(transport, server)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.accepted == 2
        assert send(transport, server) == 200
        assert server.accepted == 3
    assert methods(server) == ["GET"] * 4


def test_get_on_a_broken_new_connection_is_not_retried(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(once(b""), tls=tls) as server:
        with raises(Code.TRANSPORT_UNREACHABLE):
            send(transport, server)
        assert server.accepted == 1
    assert methods(server) == ["GET"]


def test_post_on_a_broken_connection_is_not_retried(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    with serving(closing_at_second, tls=tls) as server:
        assert send(transport, server) == 200
        with raises(Code.TRANSPORT_UNREACHABLE):
            send(transport, server, "POST")
        assert server.accepted == 1
    assert methods(server) == ["GET", "POST"]


def test_retried_get_shares_the_timeout(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    def slow_and_breaking(peer: Peer) -> None:
        peer.read()
        if server.accepted == 1:
            peer.send(reply())
            peer.read()
            time.sleep(0.5)
            return
        peer.connection.recv(1)

    with serving(slow_and_breaking, tls=tls) as server:
        assert send(transport, server) == 200
        began = time.monotonic()
        with raises(Code.TRANSPORT_TIMEOUT):
            send(transport, server, timeout_seconds=0.8)
        assert time.monotonic() - began < 1.1
        assert server.accepted == 2


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n"])
def test_interim_response_is_not_taken_for_the_final_one(
    transport: HTTPTransport, tls: ssl.SSLContext, interim: bytes
) -> None:
    """Otherwise the next request on the pooled connection would receive this one's response."""

    def hinting(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            peer.send(interim)
            time.sleep(0.05)
            peer.send(reply(request.split(b" ")[1]))

    with serving(hinting, tls=tls) as server:
        requests = [TransportRequest(method="GET", url=f"{server.url}{number}", headers={}) for number in range(3)]
        answers = [transport.send(request, timeout_seconds=5) for request in requests]
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"/0"), (200, b"/1"), (200, b"/2")]
        assert server.accepted == 1


def test_concurrent_requests_get_their_own_responses(transport: HTTPTransport, tls: ssl.SSLContext) -> None:
    def echo(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            peer.send(reply(request.split(b" ")[1]))

    seen: dict[int, bytes] = {}

    def fetch(number: int) -> None:
        request = TransportRequest(method="GET", url=f"{server.url}{number}", headers={})
        seen[number] = transport.send(request, timeout_seconds=5).body

    with serving(echo, tls=tls) as server:
        threads = [threading.Thread(target=fetch, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == {number: f"/{number}".encode() for number in range(20)}


FORKING = """
import os, sys
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.http.transport import TransportRequest
from django_phi_oidc.http.http_transport import HTTPTransport

url, ca_bundle = sys.argv[1:]
options = {"issuer": url, "client_id": "portal", "client_secret": "s", "ca_bundle": ca_bundle}
transport = HTTPTransport(parse_provider("default", options))

def send(path):
    request = TransportRequest(method="GET", url=url + path, headers={})
    assert transport.send(request, timeout_seconds=5).status == 200

send("parent")
child = os.fork()
if child == 0:
    send("child")
    send("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
send("parent")
"""


def test_forked_child_shares_no_connection(tls: ssl.SSLContext, authority: CertificateAuthority) -> None:
    seen: list[list[bytes]] = []

    def record_paths(peer: Peer) -> None:
        seen.append(paths := [])
        while (request := peer.read()) is not None:
            paths.append(request.split(b" ")[1])
            peer.send(reply())

    with serving(record_paths, tls=tls) as server:
        subprocess.run([sys.executable, "-c", FORKING, server.url, authority.certificate_path], check=True, timeout=30)
        assert sorted(seen) == [[b"/child", b"/child"], [b"/parent", b"/parent"]]


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/9 -1\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 9999999999999999999999\r\n",
        b"Content-Type: multipart/mixed; boundary=x\r\n",
        b"Content-Encoding: \xff\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Location: //\r\n",
        b"Set-Cookie: a=b\r\n",
        b"\r\n",
        b"5\r\nabcde\r\n",
        b"-5\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
    ]
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES | st.binary(max_size=20), max_size=8).map(b"".join))
def test_arbitrary_response_bytes_give_a_response_or_a_transport_error(open_transport: Opening, data: bytes) -> None:
    transport = open_transport(allow_loopback_http=True)
    status = 0
    with serving(once(data)) as server:
        with contextlib.suppress(TransportError):
            status = send(transport, server)
        transport.close()
    assert len(server.requests) == 1
    assert not 300 <= status < 400
