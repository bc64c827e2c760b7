"""Fixtures of this folder."""

from tests.support.protocol_fixtures import declare, freshness, now  # noqa: F401 -- fixtures
from tests.support.transport_fixtures import authority, tls  # noqa: F401 -- fixtures
