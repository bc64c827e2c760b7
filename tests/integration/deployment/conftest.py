"""The deployment of the example with its migrated database, its broker and its provider."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, TLSFiles, demo_accounts, demo_staff
from tests.integration.deployment.manifests import list_kubernetes_processes
from tests.integration.deployment.running import BASE_URL, Deployment, deploying, running
from tests.support.glewlwyd import wait_for_server
from tests.support.portal_fixtures import SECRET
from tests.support.tls import CertificateAuthority, create_certificate_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Return the authority of the provider's certificate, and of the proxy's."""
    return create_certificate_authority(tmp_path_factory.mktemp("authority"), "deployment")


@pytest.fixture(scope="session")
def certificate(authority: CertificateAuthority) -> Path:
    """Return the PEM file with certificate and key of the provider, and of the proxy."""
    return Path(authority.create_server_certificate("127.0.0.1"))


@pytest.fixture(scope="session")
def provider(certificate: Path) -> Iterator[DemoProvider]:
    """Run the provider, which knows the portal at its public address."""
    op = DemoProvider(accounts=(*demo_accounts(), *demo_staff()), tls=TLSFiles(certificate, certificate))
    uris = [f"{BASE_URL}/oidc/logged-out/"]
    op.register_client(Client("portal", SECRET, [f"{BASE_URL}/oidc/callback/"], post_logout_redirect_uris=uris))
    with op.running():
        yield op


@pytest.fixture(scope="session")
def deployment(provider: DemoProvider, authority: CertificateAuthority) -> Iterator[Deployment]:
    """Run PostgreSQL, and the migration of the manifests."""
    with deploying(provider, Path(authority.certificate_path)) as deployed:
        deployed.run(list_kubernetes_processes()["migration"])
        yield deployed


@pytest.fixture(scope="session")
def redis(deployment: Deployment) -> Iterator[int]:
    """Run the broker with the configuration of the manifests, and return its port."""
    program = shutil.which("redis-server")
    assert program
    text = deployment.translate((deployment.secrets / "redis.conf").read_text())
    path = deployment.folder / "redis.conf"
    path.write_text(text.replace("tls-port 6379", f"tls-port {deployment.redis_port}\nbind 127.0.0.1"))
    log = deployment.get_log("redis")
    with running([program, str(path)], {}, log) as process:
        wait_for_server(process, deployment.redis_port, log=log)
        yield deployment.redis_port
