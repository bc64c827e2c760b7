"""Fixtures of this folder."""

from tests.integration.journeys.two_providers import _region_op, region  # noqa: F401 -- fixtures
from tests.support.portal_fixtures import (  # noqa: F401 -- fixtures
    _http_op,
    _logs_hold_no_secret,
    browser,
    op,
    portal,
)
