"""The benchmark of the leak guard measures what it says, and its verdict can be either."""

import pytest

from tests.benchmarks.leak_guard.middleware_cost import PAGES, measure_guarding
from tests.benchmarks.leak_guard.report import missed, rows, table


@pytest.mark.sqlite
def test_measurement_serves_every_page() -> None:
    measured = measure_guarding(batches=3)
    assert list(measured) == list(PAGES)
    assert all(took["bare"] > 0 and took["sync"] > 0 and took["async"] > 0 for took in measured.values())


def test_only_missed_goals_are_named() -> None:
    good = {"plain": {"bare": 5.0, "sync": 40.0, "async": 99.0}}
    bad = {"plain": {"bare": 5.0, "sync": 101.0, "async": 99.0}}
    assert missed(good) == []
    assert missed(bad) == ["the guard adds 101 µs to the page 'plain' (sync), and the aim is 100"]
    assert "| plain | 40 | 99 |" in table(good)
    assert rows(good)["pages"] == good
