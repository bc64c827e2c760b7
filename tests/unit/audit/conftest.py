"""Fixtures of this folder."""

from tests.support.audit_fixtures import audit_database_away, triggers_in_place  # noqa: F401 -- fixtures
