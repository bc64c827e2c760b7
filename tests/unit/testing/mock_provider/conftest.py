"""Fixtures for the tests of the mock provider."""

from tests.support.relying_party_fixtures import clock, keys, op, other_rp, rp, rp_of, tls_files  # noqa: F401 -- fixtures
