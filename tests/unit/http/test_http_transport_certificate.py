"""Mutual TLS over real sockets: which requests present the client certificate. Spec: RFC 8705 2."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key

from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, Server, reply, serving
from tests.support.tls import CertificateAuthority, write_client_certificate
from tests.unit.http.test_http_transport_proxy import tunnelling

Opening = Callable[..., HTTPTransport]
METHOD = {"token_endpoint_auth_method": "tls_client_auth", "client_secret": ""}


def naming(peer: Peer) -> None:
    """Answer each request with the subject of the certificate that the client has presented."""
    while peer.read() is not None:
        der = peer.connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        subject = x509.load_der_x509_certificate(der).subject.rfc4514_string() if der else "none"
        peer.send(reply(subject.encode()))


def send(transport: HTTPTransport, server: Server, *, presents_certificate: bool = True) -> str:
    request = TransportRequest(
        method="POST", url=server.url, headers={}, body=b"a=b", presents_certificate=presents_certificate
    )
    return transport.send(request, timeout_seconds=5.0).body.decode()


@pytest.fixture
def mtls(authority: CertificateAuthority) -> ssl.SSLContext:
    """Return a server context that accepts the client certificates of the authority, and requires none."""
    context = authority.create_server_context("127.0.0.1")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(authority.certificate_path)
    return context


@pytest.fixture
def certificate(tmp_path: Path, authority: CertificateAuthority) -> Path:
    return write_client_certificate(tmp_path / "client.pem", authority=authority)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificate_is_presented_to_the_requests_that_need_it_and_to_no_others(
    open_transport: Opening, mtls: ssl.SSLContext, certificate: Path, version: ssl.TLSVersion
) -> None:
    mtls.minimum_version = mtls.maximum_version = version
    with serving(naming, tls=mtls) as server:
        transport = open_transport(client_certificate=certificate, **METHOD)
        asked = [True, False, True, False]
        subjects = [send(transport, server, presents_certificate=presents) for presents in asked]
        assert subjects == ["CN=portal.example", "none"] * 2
        assert server.accepted == 2, "each kind of request has connections of its own, which are kept"


def test_certificate_of_one_provider_is_not_presented_to_another(
    open_transport: Opening, mtls: ssl.SSLContext, certificate: Path
) -> None:
    with serving(naming, tls=mtls) as server:
        assert send(open_transport(client_certificate=certificate, **METHOD), server) == "CN=portal.example"
        assert send(open_transport(), server) == "none"


def test_proxy_does_not_get_the_certificate(open_transport: Opening, mtls: ssl.SSLContext, certificate: Path) -> None:
    presented = []

    def observing(peer: Peer) -> None:
        presented.append(peer.connection.getpeercert(binary_form=True))  # type: ignore[attr-defined]
        peer.read()

    with serving(naming, tls=mtls) as server, serving(observing, tls=mtls) as proxy, pytest.raises(TransportError):
        send(open_transport(client_certificate=certificate, proxy=proxy.url, **METHOD), server)
    assert presented == [None]
    with serving(naming, tls=mtls) as server, serving(tunnelling()) as proxy:
        transport = open_transport(client_certificate=certificate, proxy=proxy.url, **METHOD)
        assert send(transport, server) == "CN=portal.example"


def test_renewed_certificate_is_presented_without_a_restart(
    open_transport: Opening, mtls: ssl.SSLContext, certificate: Path, authority: CertificateAuthority
) -> None:
    with serving(naming, tls=mtls) as server:
        transport = open_transport(client_certificate=certificate, **METHOD)
        assert [send(transport, server), send(transport, server)] == ["CN=portal.example"] * 2
        modified_at = certificate.stat().st_mtime_ns
        # In place, and with a later time on file systems whose times are coarse.
        write_client_certificate(certificate, authority=authority, subject="renewed")
        os.utime(certificate, ns=(modified_at + 1, modified_at + 1))
        assert [send(transport, server), send(transport, server)] == ["CN=renewed"] * 2
        # By another file with the same time, as a rename does.
        new = write_client_certificate(certificate.with_name("new.pem"), authority=authority, subject="renamed")
        os.utime(new, ns=(modified_at + 1, modified_at + 1))
        new.replace(certificate)
        assert send(transport, server) == "CN=renamed"
        assert server.accepted == 3
        assert len(transport._pool_managers) == 1, "the pools of former certificates are closed"


def test_key_may_be_in_a_file_of_its_own(
    open_transport: Opening, mtls: ssl.SSLContext, certificate: Path, tmp_path: Path
) -> None:
    chain, separator, key = certificate.read_text().partition("-----BEGIN PRIVATE KEY-----")
    certificate.write_text(chain)
    (tmp_path / "key.pem").write_text(separator + key)
    with serving(naming, tls=mtls) as server:
        transport = open_transport(
            client_certificate=certificate, client_certificate_key=tmp_path / "key.pem", **METHOD
        )
        assert send(transport, server) == "CN=portal.example"


def _break(certificate: Path, fault: str) -> None:
    pem = certificate.read_text()
    chain, separator, key = pem.partition("-----BEGIN PRIVATE KEY-----")
    other = write_client_certificate(certificate.with_name("other.pem")).read_text()
    encrypted = load_key((separator + key).encode(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    contents = {
        "empty": "",
        "no key": chain,
        "key only": separator + key,
        "key of another": chain + separator + other.partition(separator)[2],
        "encrypted key": chain + encrypted.decode(),
        "damaged": pem.replace("A", "B"),
    }
    if fault == "missing":
        certificate.unlink()
    else:
        certificate.write_text(contents[fault])


@pytest.mark.parametrize(
    "fault", ["missing", "empty", "no key", "key only", "key of another", "encrypted key", "damaged"]
)
def test_unusable_certificate_fails_the_request_with_a_clear_error(
    open_transport: Opening, mtls: ssl.SSLContext, certificate: Path, fault: str
) -> None:
    with serving(naming, tls=mtls) as server:
        transport = open_transport(client_certificate=certificate, **METHOD)
        content = certificate.read_text()
        _break(certificate, fault)
        with raises(Code.TRANSPORT_TLS) as error:
            send(transport, server)
        assert str(error.value).startswith("client_certificate")
        assert server.accepted == 0
        assert send(transport, server, presents_certificate=False) == "none"
        certificate.write_text(content)
        assert send(transport, server) == "CN=portal.example"


def test_server_that_refuses_the_certificate_is_a_tls_error(
    open_transport: Opening, mtls: ssl.SSLContext, certificate: Path
) -> None:
    mtls.verify_mode, mtls.maximum_version = ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2
    stranger = write_client_certificate(certificate.with_name("stranger.pem"))
    with serving(naming, tls=mtls) as server:
        assert send(open_transport(client_certificate=certificate, **METHOD), server) == "CN=portal.example"
        with raises(Code.TRANSPORT_TLS):
            send(open_transport(client_certificate=stranger, **METHOD), server)
        with raises(Code.TRANSPORT_TLS):
            send(open_transport(), server)
