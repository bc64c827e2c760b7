"""Fixtures of this folder."""

from tests.support.siem_fixtures import authority, clock  # noqa: F401 -- fixtures
