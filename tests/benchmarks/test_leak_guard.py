"""The benchmark of the leak guard works, and reports missed goals."""

import pytest

from tests.benchmarks.leak_guard.middleware_cost import PAGES, measure_leak_guard
from tests.benchmarks.leak_guard.report import missed, rows, table


@pytest.mark.sqlite
def test_measurement_serves_every_page() -> None:
    measured = measure_leak_guard(batches=3)
    assert list(measured) == list(PAGES)
    assert all(took["bare"] > 0 and took["sync"] > 0 and took["async"] > 0 for took in measured.values())


def test_only_missed_goals_are_named() -> None:
    good = {"plain": {"bare": 5.0, "sync": 40.0, "async": 99.0}}
    bad = {"plain": {"bare": 5.0, "sync": 101.0, "async": 99.0}}
    assert missed(good) == []
    assert missed(bad) == ["the guard adds 101 µs to the page 'plain' (sync), the goal is 100"]
    assert "| plain | 40 | 99 |" in table(good)
    assert rows(good)["pages"] == good
