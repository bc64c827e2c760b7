"""A person with a session, at a provider that revokes what it is asked to."""

from tests.support.session_fixtures import op, sign_in

__all__ = ["op", "sign_in"]
