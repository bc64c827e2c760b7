"""The benchmark of an outage works at a tenth of its size, and reports missed goals."""

import os
from collections import Counter

import pytest

from tests.benchmarks.outage.page_load import PAGES, PageTimes, measure_outage
from tests.benchmarks.outage.report import missed, rows, table
from tests.support.postgresql import given_url


@pytest.mark.postgresql
def test_measurement_times_each_page_and_refuses_each_sign_in() -> None:
    times = measure_outage(url=given_url(os.environ), seconds=3, log=print)
    assert {page: len(seconds) for page, seconds in times.quiet.items()} == dict.fromkeys(PAGES, 12)
    assert {page: len(seconds) for page, seconds in times.outage.items()} == dict.fromkeys(PAGES, 12)
    assert times.sign_ins == {503: 9}


def times_with(*, home: float = 0.018, health: float = 0.5, break_glass: float = 0.5, status: int = 503) -> PageTimes:
    outage = {
        "home": [home] * 20,
        "health": [0.01] * 20 + [health],
        "break-glass": [0.01] * 20 + [break_glass],
    }
    return PageTimes({page: [0.01] * 20 for page in PAGES}, outage, Counter({503: 8, status: 1}))


def test_met_goals_are_not_named() -> None:
    assert missed(times_with()) == []
    assert "| home | 10 | 18 | × 1.80 | 18 |" in table(times_with())
    assert rows(times_with())[0]["ratio"] == pytest.approx(1.8)


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (times_with(home=0.021), "home at 2.1 of its quiet time"),
        (times_with(health=1.1), "health took 1.1 s"),
        (times_with(break_glass=1.1), "break-glass took 1.1 s"),
        (times_with(status=302), "[302, 503]"),
    ],
)
def test_missed_goals_are_named(times: PageTimes, text: str) -> None:
    (line,) = missed(times)
    assert text in line
