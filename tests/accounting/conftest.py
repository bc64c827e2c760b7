"""Persons whose records are looked at."""

from tests.claims.conftest import make_person, person  # noqa: F401 -- fixtures
from tests.sessions.conftest import sign_in  # noqa: F401 -- a fixture
