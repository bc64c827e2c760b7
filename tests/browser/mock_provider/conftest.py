"""Fixtures of this folder."""

from tests.support.relying_party_fixtures import clock, keys, op, rp  # noqa: F401 -- fixtures
