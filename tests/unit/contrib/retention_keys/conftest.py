"""Fixtures of this folder."""

from tests.support.claims_fixtures import _declared, make_person, outbox_events, person  # noqa: F401 -- fixtures
