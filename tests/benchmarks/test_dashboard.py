"""The benchmark of the desk measures what it says, at a hundredth of its size, and its verdict can be either."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.dashboard.page_times import Looked, measure_looking
from tests.benchmarks.dashboard.report import missed, rows, table
from tests.support.postgresql import given_url

LIST = Looked(ms=59.0, cpu=33.0, queries=8)
MET = {
    "first page": LIST,
    "three quarters down": LIST,
    "desk": Looked(ms=149.0, cpu=90.0, queries=12),
    "stock, first page": Looked(ms=800.0, cpu=790.0, queries=9),
}


@pytest.mark.postgresql
def test_measurement_loads_every_page() -> None:
    results = measure_looking(url=given_url(os.environ), events=20_000, rounds=2, told=print)
    assert set(MET) < set(results)
    assert all(looked.ms > 0 < looked.queries for looked in results.values())


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("page", "changed", "told"),
    [
        ("first page", {"ms": 60.0}, "first page takes 60 ms"),
        ("first page", {"queries": 9}, "first page takes 9 queries"),
        ("first page", {"ms": 39.0}, "a page far down takes longer"),
        ("desk", {"ms": 150.0}, "desk takes 150 ms"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(page: str, changed: dict[str, float], told: str) -> None:
    assert missed(MET) == []
    (line,) = missed({**MET, page: replace(MET[page], **changed)})
    assert told in line


@pytest.mark.sqlite
def test_table_has_a_line_per_page_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[4] == "| desk | 149 | 90 | 12 |"
    assert rows(MET)["desk"] == {"ms": 149.0, "cpu": 90.0, "queries": 12}
