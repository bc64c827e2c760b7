"""A federation without a network."""

from datetime import datetime

import pytest

from tests.support.federation import Federation


@pytest.fixture
def federation(now: datetime) -> Federation:
    return Federation("https://fed.example", now=now)
