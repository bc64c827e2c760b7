"""A run at another date."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.shifted_clock import DATES, build_environment

PRINT_TIMES = """
import django
django.setup()
from django.utils import timezone
from django_phi_oidc._internal import clock
print(clock.now().isoformat(), timezone.now().isoformat())
"""
BEGIN = datetime(2032, 2, 29, 12, tzinfo=UTC)


def test_other_process_begins_at_the_given_date() -> None:
    environment = build_environment({**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}, begin=BEGIN)
    command = [sys.executable, "-c", PRINT_TIMES]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
    for text in printed.split():
        assert BEGIN <= datetime.fromisoformat(text) < BEGIN + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("the first day of a month", datetime(2027, 1, 1, 0, 0, 30, tzinfo=UTC)),
        ("29 February", datetime(2028, 2, 29, 12, tzinfo=UTC)),
        ("the beginning of summer time in Europe", datetime(2027, 3, 28, 0, 59, tzinfo=UTC)),
        ("the end of summer time in Europe", datetime(2027, 10, 31, 0, 59, tzinfo=UTC)),
    ],
)
def test_date_is_the_next_of_its_kind(name: str, expected: datetime) -> None:
    assert DATES[name].find_next(datetime(2026, 12, 1, 22, tzinfo=UTC)) == expected


def test_all_dates_are_in_the_future() -> None:
    now = datetime(2028, 2, 29, 23, tzinfo=UTC)
    dates = [beginning.find_next(now) for beginning in DATES.values()]
    assert len(set(dates)) == 10
    assert min(dates) > now
