"""Fixtures of this folder."""

from tests.support.siem_fixtures import authority, clock, file  # noqa: F401 -- fixtures
