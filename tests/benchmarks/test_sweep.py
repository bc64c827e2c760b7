"""The benchmark works at a hundredth of its size, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.sweep.rates import Rate, Results, measure_sweep
from tests.benchmarks.sweep.report import missed, rows, table
from tests.support.postgresql import given_url

MET = Results(
    sweeps={
        0.0: Rate(count=600, wall=1.0, cpu=0.8),
        0.02: Rate(count=400, wall=1.0, cpu=0.6),
        0.1: Rate(count=150, wall=1.0, cpu=0.3),
    },
    at_once=Rate(count=600, wall=1.0, cpu=1.6),
    logout=Rate(count=5_000, wall=1.0, cpu=0.7),
    bulk=Rate(count=5_000, wall=1.0, cpu=0.7),
)


@pytest.mark.postgresql
def test_measurement_asks_for_each_token_once_and_ends_all_sessions() -> None:
    results = measure_sweep(
        url=given_url(os.environ), round_trips=(0.0, 0.1), seconds=1, logged_out=100, ended=100, log=print
    )
    assert [rate.repeated for rate in (*results.sweeps.values(), results.at_once)] == [0, 0, 0]
    # How many depends on the machine; `left` in the measurement compares them with the events.
    assert results.at_once.count > 0
    assert (results.logout.count, results.bulk.count) == (100, 100)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"sweeps": {**MET.sweeps, 0.02: Rate(count=399, wall=1.0, cpu=0.6)}}, "399 tokens a second at 20 ms"),
        ({"sweeps": {**MET.sweeps, 0.1: Rate(count=149, wall=1.0, cpu=0.6)}}, "149 tokens a second at 100 ms"),
        ({"at_once": replace(MET.at_once, repeated=1)}, "1 tokens were asked for twice"),
        ({"logout": replace(MET.logout, count=4_900)}, "10,000 sessions logged out in 2.0 s"),
        ({"bulk": replace(MET.bulk, count=4_999)}, "4,999 sessions a second"),
    ],
)
def test_only_missed_goals_are_named(changed: dict[str, object], text: str) -> None:
    assert missed(MET) == []
    (line,) = missed(replace(MET, **changed))  # type: ignore[arg-type]  # one of its fields
    assert line.startswith(text)


@pytest.mark.sqlite
def test_table_has_a_line_per_rate_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[3] == "| sweep, 20 ms | 400 | 400 | 1.50 | 0 |"
    assert rows(MET)["4 sweeps at once, 100 ms"]["per_second"] == 600
