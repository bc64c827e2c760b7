"""The benchmark works at a hundredth of its size, and reports missed goals."""

import os

import pytest

from tests.benchmarks.leavers.latency import Latencies, measure_leavers
from tests.benchmarks.leavers.report import missed, rows, table
from tests.support.postgresql import given_url

MET = Latencies(round_trip=0.02, seconds=[0.1] * 98 + [0.99] * 2, late=0)


@pytest.mark.postgresql
def test_each_person_is_out_and_each_token_was_asked_for() -> None:
    (result,) = measure_leavers(url=given_url(os.environ), people=200, leavers=20, round_trips=(0.0,), log=print)
    assert (len(result.seconds), result.late) == (20, 0)


@pytest.mark.sqlite
def test_met_goals_are_not_reported() -> None:
    assert missed([MET]) == []
    assert rows([MET])["20 ms"]["p99"] == 0.99
    assert "| 20 ms | 100 | 50 | 100 | 990 | 990 | 0 |" in table([MET])


@pytest.mark.sqlite
def test_missed_goals_are_reported() -> None:
    late = Latencies(round_trip=0.02, seconds=[0.1] * 98 + [1.0] * 2, late=3)
    assert len(missed([late])) == 2
