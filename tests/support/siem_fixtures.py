from pathlib import Path

import pytest

from tests.support.sealed_events import Clock
from tests.support.tls import CertificateAuthority, create_certificate_authority


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Return the CA of the collectors' certificates."""
    return create_certificate_authority(tmp_path_factory.mktemp("ca"), "collectors")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"
