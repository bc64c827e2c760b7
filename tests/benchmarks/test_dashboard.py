"""The benchmark of the admin pages works at a hundredth of its size, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.dashboard.page_times import PageCost, measure_pages
from tests.benchmarks.dashboard.report import missed, rows, table
from tests.support.postgresql import given_url

LIST = PageCost(ms=59.0, cpu=33.0, queries=8)
MET = {
    "first page": LIST,
    "three quarters down": LIST,
    "overview": PageCost(ms=59.0, cpu=40.0, queries=14),
    "stock, first page": PageCost(ms=800.0, cpu=790.0, queries=9),
}


@pytest.mark.postgresql
def test_measurement_loads_every_page() -> None:
    results = measure_pages(url=given_url(os.environ), events=20_000, sessions=12_000, rounds=2, log=print)
    assert set(MET) < set(results)
    assert all(cost.ms > 0 < cost.queries for cost in results.values())


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("page", "changed", "text"),
    [
        ("first page", {"ms": 60.0}, "first page takes 60 ms"),
        ("first page", {"queries": 9}, "first page takes 9 queries"),
        ("first page", {"ms": 39.0}, "a page far down takes longer"),
        ("overview", {"ms": 60.0}, "overview takes 60 ms"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(page: str, changed: dict[str, float], text: str) -> None:
    assert missed(MET) == []
    (line,) = missed({**MET, page: replace(MET[page], **changed)})
    assert text in line


@pytest.mark.sqlite
def test_table_has_a_line_per_page_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[4] == "| overview | 59 | 40 | 14 |"
    assert rows(MET)["overview"] == {"ms": 59.0, "cpu": 40.0, "queries": 14}
