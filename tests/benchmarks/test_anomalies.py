"""The benchmark of anomaly rules works at a fiftieth of its size, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.anomalies.report import missed, rows, table
from tests.benchmarks.anomalies.rule_throughput import Evaluation, measure_rules
from tests.support.postgresql import given_url

AT_LIMIT = Evaluation(events=100_000, floor=1.0, wall=5.0, cpu=2.5, peak=80_000_000, alerts=0)
MET = {"week": AT_LIMIT, "flood": replace(AT_LIMIT, alerts=1_000)}


@pytest.mark.postgresql
def test_measurement_evaluates_every_event_of_both_logs() -> None:
    results = measure_rules(url=given_url(os.environ), events=2_000, log=print)
    assert {trail: evaluation.events for trail, evaluation in results.items()} == {"week": 2_000, "flood": 2_000}
    for evaluation in results.values():
        assert 0 < evaluation.floor < evaluation.wall
        assert 20e6 < evaluation.peak < 500e6
    assert (results["week"].alerts, results["flood"].alerts > 0) == (0, True)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("trail", "changed", "text"),
    [
        ("week", {"wall": 5.1}, "19,608 events/s of a week"),
        ("flood", {"wall": 6.8}, "14,706 events/s of a flood"),
        ("week", {"alerts": 1}, "1 alerts in a week"),
        ("flood", {"alerts": 0}, "no alert for a flood"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(trail: str, changed: dict[str, float], text: str) -> None:
    assert missed(MET) == []
    (line,) = missed({**MET, trail: replace(MET[trail], **changed)})
    assert text in line


@pytest.mark.sqlite
def test_table_has_a_line_per_log_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[2] == "| a week | 100,000 | 20,000 | 100,000 | 0.20 | 2.5 | 80 | 0 |"
    assert rows(MET)["flood"]["of_floor"] == pytest.approx(0.2)
