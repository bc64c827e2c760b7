"""Fixtures of this folder."""

from tests.support.claims_fixtures import make_person, person  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
