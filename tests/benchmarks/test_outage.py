"""The benchmark of a slow provider works at a small size, and reports missed goals."""

import os
from collections import Counter

import pytest

from tests.benchmarks.outage.page_load import PAGES, PageTimes, measure_outage
from tests.benchmarks.outage.report import missed, rows, table
from tests.benchmarks.outage.slow_provider import ENDPOINTS, Endpoint
from tests.support.postgresql import given_url

STATUSES: dict[Endpoint, set[int]] = {
    "discovery": {302, 503},
    "par": {302, 503},
    "token": {403, 503},
    "jwks": {400, 503},
}


@pytest.mark.postgresql
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_measurement_times_each_page_and_answers_each_stranger(endpoint: Endpoint) -> None:
    (times,) = measure_outage(url=given_url(os.environ), seconds=3, log=print, endpoints=[endpoint], delays=[0.9])
    assert {page: len(seconds) for page, seconds in times.quiet.items()} == dict.fromkeys(PAGES, 12)
    assert {page: len(seconds) for page, seconds in times.slow.items()} == dict.fromkeys(PAGES, 12)
    assert times.strangers.total() == 24
    assert set(times.strangers) <= STATUSES[endpoint]


def times_with(*, home: float = 0.04, health: float = 0.5, break_glass: float = 0.5, status: int = 503) -> PageTimes:
    slow = {
        "home": [home] * 20,
        "health": [0.01] * 20 + [health],
        "break-glass": [0.01] * 20 + [break_glass],
    }
    quiet = {page: [0.02] * 20 for page in PAGES}
    return PageTimes(endpoint="par", delay_seconds=0.9, quiet=quiet, slow=slow, strangers=Counter({503: 8, status: 1}))


def test_met_goals_are_not_named() -> None:
    assert missed([times_with()]) == []
    assert "| par | 0.9 | home | 20 | 40 | × 2.00 | 40 |" in table([times_with()])
    assert rows([times_with()])[0]["ratio"] == pytest.approx(2.0)


def test_time_that_a_person_does_not_notice_meets_the_goal() -> None:
    times = times_with(home=0.024)
    times.quiet["home"] = [0.002] * 20
    assert missed([times]) == []
    times.slow["home"] = [0.026] * 20
    assert len(missed([times])) == 1


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (times_with(home=0.042), "home, par 0.9 s: 2.1 of its quiet time"),
        (times_with(health=1.1), "health, par 0.9 s: took 1.1 s"),
        (times_with(break_glass=1.1), "break-glass, par 0.9 s: took 1.1 s"),
        (times_with(status=500), "[500]"),
    ],
)
def test_missed_goals_are_named(times: PageTimes, text: str) -> None:
    (line,) = missed([times])
    assert text in line
