"""The benchmark of anomaly rules measures what it says, at a fiftieth of its size, and its verdict can be either."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.anomalies.report import missed, rows, table
from tests.benchmarks.anomalies.rule_throughput import Judged, measure_judging
from tests.support.postgresql import given_url

JUST_WITHIN = Judged(events=100_000, floor=1.0, wall=5.0, cpu=2.5, peak=80_000_000, alerts=0)
MET = {"week": JUST_WITHIN, "flood": replace(JUST_WITHIN, alerts=1_000)}


@pytest.mark.postgresql
def test_measurement_evaluates_every_event_of_both_logs() -> None:
    results = measure_judging(url=given_url(os.environ), events=2_000, told=print)
    assert {trail: judged.events for trail, judged in results.items()} == {"week": 2_000, "flood": 2_000}
    for judged in results.values():
        assert 0 < judged.floor < judged.wall
        assert 20e6 < judged.peak < 500e6
    assert (results["week"].alerts, results["flood"].alerts > 0) == (0, True)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("trail", "changed", "told"),
    [
        ("week", {"wall": 5.1}, "19,608 events/s of a week"),
        ("flood", {"wall": 6.8}, "14,706 events/s of a flood"),
        ("week", {"alerts": 1}, "1 alerts in a week"),
        ("flood", {"alerts": 0}, "no alert of a flood"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(trail: str, changed: dict[str, float], told: str) -> None:
    assert missed(MET) == []
    (line,) = missed({**MET, trail: replace(MET[trail], **changed)})
    assert told in line


@pytest.mark.sqlite
def test_table_has_a_line_per_log_with_the_figures_of_the_rows() -> None:
    assert table(MET).splitlines()[2] == "| a week | 100,000 | 20,000 | 100,000 | 0.20 | 2.5 | 80 | 0 |"
    assert rows(MET)["flood"]["of_floor"] == pytest.approx(0.2)
