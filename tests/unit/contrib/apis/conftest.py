"""Fixtures of this folder."""

from tests.support.protocol_fixtures import (  # noqa: F401 -- fixtures
    client_keys,
    declare,
    freshness,
    jwks,
    keys,
    make_response,
    metadata,
    now,
    private_keys,
    sign,
)
