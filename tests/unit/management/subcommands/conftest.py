"""Fixtures of this folder."""

from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- fixtures
from tests.support.claims_fixtures import make_person, person  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
