"""The benchmark of growth works with few rows, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.growth.report import missed, rows, table
from tests.benchmarks.growth.work_times import WorkTime, measure_growth
from tests.support.postgresql import given_url

MET = {
    "overdue": WorkTime(seconds=0.3, floor=0.1, statements=3),
    "check": WorkTime(seconds=20.0, floor=1.0),
    "list, first page": WorkTime(seconds=0.06, floor=0.01),
    "bulk": WorkTime(seconds=1.0, floor=0.2, count=5_000),
    "sign-in beside the bulk end": WorkTime(seconds=0.003, floor=0.001),
}


@pytest.mark.postgresql
def test_measurement_does_each_work() -> None:
    results = measure_growth(url=given_url(os.environ), people=500, sessions=1_000, many=20, ended=30, log=print)
    assert set(MET) < set(results)
    assert {name: result.count for name, result in results.items() if result.count} == {
        "backchannel": 20,
        "bulk": 30,
        "lost": 20,
        "prune": 202,
    }
    assert all(result.seconds > 0 < result.floor for result in results.values())
    assert all(result.statements for name, result in results.items() if name.startswith("list"))


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("name", "changed", "text"),
    [
        ("overdue", {"seconds": 0.31}, "`end_overdue`, nothing due takes 0.31 s"),
        ("check", {"floor": 0.9}, "takes 22.2 times its floor"),
        ("list, first page", {"seconds": 0.07}, "list, first page takes 0.07 s"),
        ("bulk", {"count": 4_999}, "bulk end changes 4,999 rows a second"),
        ("sign-in beside the bulk end", {"seconds": 0.004}, "takes 4.0 times its floor"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(name: str, changed: dict[str, float], text: str) -> None:
    assert missed(MET) == []
    (line,) = missed({**MET, name: replace(MET[name], **changed)})
    assert text in line


@pytest.mark.sqlite
def test_table_has_a_line_for_each_work_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[5] == "| bulk end | 1.000 | 0.200 | 5.0 | 5,000 | 5,000 |  |"
    assert rows(MET)["bulk"]["ratio"] == 5.0
