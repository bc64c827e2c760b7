"""A federation without a network."""

from datetime import datetime

import pytest

from tests.support.federation import Federation
from tests.support.protocol_fixtures import now  # noqa: F401 -- fixture
from tests.support.transport_fixtures import authority, declare, tls  # noqa: F401 -- fixtures


@pytest.fixture
def federation(now: datetime) -> Federation:
    return Federation("https://fed.example", now=now)
