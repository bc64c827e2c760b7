"""P1: the tests of the readers of the log with 10,000 hostile events."""

import pytest

from tests.unit.contrib.test_hostile_log import (
    pytestmark,
    seal_hostile,
    test_p1_admin_shows_all,
    test_p1_anomaly_rules_evaluate_all,
    test_p1_exports_have_all,
    test_p1_sink_gets_all,
    test_p1_verification_and_archive_have_all,
)

__all__ = [
    "pytestmark",
    "test_p1_admin_shows_all",
    "test_p1_anomaly_rules_evaluate_all",
    "test_p1_exports_have_all",
    "test_p1_sink_gets_all",
    "test_p1_verification_and_archive_have_all",
]
COUNT = 10_000


@pytest.fixture
def tree_size() -> int:
    return seal_hostile(COUNT, seed=4)
