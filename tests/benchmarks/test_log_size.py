"""The benchmark of the log's growth works at a tiny size, and reports missed goals."""

import os
from dataclasses import replace

import psycopg
import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.log_size.measurement import KEPT_NAME, LogSizes, Measure, build_logs, measure_sizes
from tests.benchmarks.log_size.report import missed, rows, table
from tests.support.postgresql import given_url

SIZES = [1_000, 2_500]
GROWTH = {
    "page of the list": Measure(value=50.0, floor=1.0),
    "new events verified": Measure(value=2.0, floor=1.0),
    "proof, p99": Measure(value=20.0, floor=1.0),
    "partition detached": Measure(value=1_000.0, floor=30.0),
    "event beside that, p99": Measure(value=10.0, floor=5.0),
    "bytes of an event and its leaf, 1 writer": Measure(value=700.0, floor=300.0),
}
RESULTS = LogSizes(
    growth={
        1_000: GROWTH,
        2_500: {
            **GROWTH,
            "page of the list": Measure(value=75.0, floor=1.0),
            "new events verified": Measure(value=22.0, floor=1.0),
        },
    },
    once={"verification of a day, 5 events, s": Measure(value=30.0, floor=5.0)},
)


def _databases() -> set[str]:
    with psycopg.connect(given_url(os.environ)) as server:
        return {name for (name,) in server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'phi_bench%'")}


@pytest.mark.postgresql
def test_logs_are_measured_at_each_size_and_dropped() -> None:
    before = _databases()
    results = measure_sizes(
        url=given_url(os.environ),
        sizes=SIZES,
        new=200,
        day=600,
        converted=1_500,
        seconds=0.3,
        proofs=10,
        is_kept=False,
        log=print,
    )
    assert list(results.growth) == SIZES
    smaller, larger = results.growth.values()
    assert list(smaller) == list(larger)
    for name, measure in [*smaller.items(), *larger.items(), *results.once.items()]:
        assert measure.value > 0 < measure.floor, name
    assert smaller["bytes of an event and its leaf, 1 writer"].floor < 700
    assert _databases() == before


@pytest.mark.postgresql
def test_kept_logs_are_built_once_and_stay() -> None:
    url, lines = given_url(os.environ), list[str]()
    try:
        for _ in range(2):
            build_logs(url=url, sizes=[300], log=lines.append)
        assert len(lines) == 1
        assert KEPT_NAME.format(300) in _databases()
    finally:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {KEPT_NAME.format(300)} WITH (FORCE)")


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("name", "changed", "text"),
    [
        ("page of the list", {"value": 80.0}, "page of the list grew 1.6 times"),
        ("new events verified", {"value": 22.1}, "new events verified grew 11.1 times"),
        ("proof, p99", {"value": 20.1}, "proof, p99 at 2,500 events: 20.1, the goal is 20"),
        ("partition detached", {"value": 1_001.0}, "partition detached at 2,500 events: 1,001.0"),
        ("event beside that, p99", {"floor": 4.9}, "event beside that, p99 at 2,500 events: 2.0 times"),
        ("bytes of an event and its leaf, 1 writer", {"value": 701.0}, "1 writer at 2,500 events: 701.0"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(name: str, changed: dict[str, float], text: str) -> None:
    assert missed(RESULTS) == []
    smaller, larger = RESULTS.growth.values()
    growth = {1_000: smaller, 2_500: {**larger, name: replace(larger[name], **changed)}}
    (line,) = missed(replace(RESULTS, growth=growth))
    assert text in line


@pytest.mark.sqlite
def test_slow_verification_of_a_day_is_named() -> None:
    once = {"verification of a day, 5 events, s": Measure(value=30.1, floor=5.0)}
    (line,) = missed(replace(RESULTS, once=once))
    assert line == "verification of a day, 5 events, s: 30.1, the goal is 30"


@pytest.mark.sqlite
def test_table_has_a_line_for_each_measure_and_a_column_for_each_size() -> None:
    growth, once = table(RESULTS).split("\n\n")
    assert "| page of the list | 50.00 (1.00) | 75.00 (1.00) |" in growth.splitlines()
    assert "| partition detached | 1,000 (30.00) | 1,000 (30.00) |" in growth.splitlines()
    assert once.splitlines()[2:] == ["| verification of a day, 5 events, s | 30.00 (5.00) |"]
    assert rows(RESULTS)["growth"][1_000]["proof, p99"] == {"value": 20.0, "floor": 1.0}


@pytest.mark.sqlite
def test_part_is_selected_by_the_beginning_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["logs"])
    assert "There is no part logs." in capsys.readouterr().err
