"""Fixtures of this folder."""

from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
