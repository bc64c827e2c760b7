"""Fixtures for the tests of provider/: a trusted and another certificate authority, declarations and transports."""

import ssl
from collections.abc import Callable, Iterator

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.http.http_transport import HTTPTransport
from tests.support.tls import CertificateAuthority, create_certificate_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="session")
def tls(authority: CertificateAuthority) -> ssl.SSLContext:
    return authority.create_server_context("127.0.0.1")


@pytest.fixture
def declare(authority: CertificateAuthority) -> Callable[..., ProviderDeclaration]:
    """Return a function that creates a declaration that trusts the authority."""

    def declare(**options: object) -> ProviderDeclaration:
        minimal = {
            "issuer": "https://127.0.0.1",
            "client_id": "portal",
            "client_secret": "s",
            "ca_bundle": authority.certificate_path,
        }
        return parse_provider("default", {**minimal, **options})

    return declare


@pytest.fixture
def open_transport(declare: Callable[..., ProviderDeclaration]) -> Iterator[Callable[..., HTTPTransport]]:
    """Return a function that creates a transport, which is closed after the test."""
    opened: list[HTTPTransport] = []

    def open_transport(**options: object) -> HTTPTransport:
        opened.append(HTTPTransport(declare(**options)))
        return opened[-1]

    yield open_transport
    for transport in opened:
        transport.close()


@pytest.fixture
def transport(open_transport: Callable[..., HTTPTransport]) -> HTTPTransport:
    return open_transport()
