"""Fixtures: the portal and the mock provider, each on a socket in this process."""

from collections.abc import Iterator
from typing import Any

import pytest

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, TLSFiles, demo_accounts
from tests.integration.journeys.two_providers import _region_op, clinic, declare, region  # noqa: F401 -- fixtures
from tests.support.http_browser import Browser
from tests.support.log_capture import capture_all_logs, leaks
from tests.support.tls import CertificateAuthority, create_certificate_authority

SECRET = "s3cret & ümlaut:/+"
EVERYTHING = {"databases": ["default", "phi_audit"], "transaction": True}


def declaration(op: DemoProvider, **options: Any) -> dict[str, Any]:
    """Return the provider's declaration for PHI_OIDC."""
    http = {} if op.tls else {"allow_loopback_http": True}
    return {"issuer": op.issuer, "client_id": "portal", "client_secret": SECRET, **http, **options}


def client(base: str, client_id: str = "portal") -> Client:
    """Return the portal's registration at the provider."""
    return Client(
        client_id,
        SECRET,
        [f"{base}/oidc/callback/", f"{base}/oidc/other/callback/"],
        post_logout_redirect_uris=[f"{base}/oidc/logged-out/"],
    )


@pytest.fixture(autouse=True)
def _logs_hold_no_secret(request: pytest.FixtureRequest) -> Iterator[None]:
    """Search every line that a test logs for secrets."""
    with capture_all_logs() as log:
        yield
    ops = [value for value in request.node.funcargs.values() if isinstance(value, DemoProvider)]
    assert leaks("\n".join(log.lines), ops) == []


@pytest.fixture(scope="session")
def _http_op() -> Iterator[DemoProvider]:
    op = DemoProvider(accounts=demo_accounts())
    with op.running():
        yield op


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="session")
def _tls_op(authority: CertificateAuthority) -> Iterator[DemoProvider]:
    certificate = authority.create_server_certificate("127.0.0.1")
    op = DemoProvider(accounts=demo_accounts(), tls=TLSFiles(certificate, certificate))
    with op.running():
        yield op


@pytest.fixture
def portal(live_server: Any, settings: Any) -> str:
    """Return the address of the portal."""
    settings.ROOT_URLCONF = "tests.support.portal_urls"
    settings.LOGIN_URL = "oidc_authentication_init"
    return str(live_server.url)


def _unmodified(op: DemoProvider, portal: str) -> Iterator[DemoProvider]:
    op.register_client(client(portal))
    with op.state.lock:
        op.state.tokens.clear()
        op.state.id_tokens.clear()
        op.state.requests.clear()
    try:
        yield op
    finally:
        op.mutate = op.intercept = None
        op.signing_alg = "RS256"
        op.state.scope_claims_in_id_token = False
        op.state.heart_claims = False
        op.par = "off"
        op.state.dpop, op.state.dpop_nonce = "off", ""


@pytest.fixture
def op(_http_op: DemoProvider, portal: str, settings: Any) -> Iterator[DemoProvider]:
    """The mock provider over http on loopback, declared as the portal's default provider."""
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(_http_op)}}
    yield from _unmodified(_http_op, portal)


@pytest.fixture
def tls_op(
    _tls_op: DemoProvider, portal: str, settings: Any, authority: CertificateAuthority
) -> Iterator[DemoProvider]:
    """The mock provider over TLS, declared with the CA that signed its certificate."""
    provider = declaration(_tls_op, ca_bundle=authority.certificate_path)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    yield from _unmodified(_tls_op, portal)


@pytest.fixture
def browser(portal: str) -> Browser:
    """A fresh browser."""
    return Browser(portal)


def events(**fields: Any) -> list[AuditEvent]:
    """Return the audit events with these field values, oldest first."""
    return list(AuditEvent.objects.filter(**fields).order_by("id"))
