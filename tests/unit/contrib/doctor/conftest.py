"""Fixtures of this folder."""

from tests.support.transport_fixtures import authority, tls  # noqa: F401 -- fixtures
