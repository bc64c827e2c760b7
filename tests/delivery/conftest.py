from pathlib import Path

import pytest

from tests.delivery.log import Clock
from tests.tls import Authority, found_authority


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the CA that the collectors' certificates are of."""
    return found_authority(tmp_path_factory.mktemp("ca"), "collectors")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"
