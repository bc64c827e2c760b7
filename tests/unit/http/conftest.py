"""Fixtures of this folder."""

from tests.support.transport_fixtures import authority, declare, open_transport, other_authority, tls, transport  # noqa: F401 -- fixtures
