"""The benchmark works at a hundredth of its size, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.claims.report import missed, rows, table
from tests.benchmarks.claims.scrub_throughput import Erased, Scrubbing, measure_scrub
from tests.support.postgresql import given_url

MET = Scrubbing(
    bare=Erased(rows=100, wall=1.0),
    one=Erased(rows=100, wall=3.0, peak=90_000_000, p99=0.002),
    two=Erased(rows=100, wall=1.9, peak=80_000_000, p99=0.003),
    few=Erased(rows=10, wall=0.3, peak=80_000_000, p99=0.002),
    p99_alone=0.001,
)


@pytest.mark.postgresql
def test_measurement_erases_half_of_the_rows_each_time() -> None:
    measured = measure_scrub(url=given_url(os.environ), rows=20_000, log=print)
    assert [each.rows for each in (measured.bare, measured.one, measured.two, measured.few)] == [10_000] * 3 + [1_000]
    assert 20e6 < measured.one.peak < 500e6
    assert 0 < measured.p99_alone < 1


def test_only_missed_goals_of_a_run_are_named() -> None:
    assert missed(MET) == []
    slow = replace(MET, one=replace(MET.one, wall=3.4), two=replace(MET.two, wall=2.1))
    assert [line.partition(" at ")[0] for line in missed(slow)] == ["one worker", "two workers"]
    (line,) = missed(replace(MET, one=replace(MET.one, peak=101_000_000)))
    assert line.startswith("21 MB more")


def test_table_has_a_line_per_contender_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[3] == "| one worker | 100 | 33 | 0.33 | 90 | 2.0 |"
    assert rows(MET)["two"]["ratio"] == pytest.approx(1 / 1.9)
    assert rows(MET)["p99_alone"] == 0.001
