"""Fixtures of this folder."""

from tests.support.clock_fixtures import at_noon  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
