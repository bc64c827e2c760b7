"""Fixtures of this folder."""

from tests.support.scim_fixtures import connect, scim  # noqa: F401 -- fixtures
