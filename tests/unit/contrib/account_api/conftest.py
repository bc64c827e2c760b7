"""Fixtures of this folder."""

from tests.support.api_fixtures import _hospital, _logs_hold_no_secret, app, declare, op, op_keys  # noqa: F401 -- fixtures
