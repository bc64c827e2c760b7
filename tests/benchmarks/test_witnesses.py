"""The benchmark works at a small size, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.witnesses.costs import Costs, measure_witnesses
from tests.benchmarks.witnesses.report import missed, rows, table
from tests.support.postgresql import given_url

COSTS = Costs(
    seal_floor=[10.0] * 5,
    seal=[29.0] * 5,
    quorum=[50.0] * 5,
    record_floor=[1.0] * 5,
    record=[1.1] * 5,
    proof_floor=[10.0] * 5,
    proof=[19.0] * 5,
    tree_size=1000,
)


@pytest.mark.postgresql
def test_seals_events_and_proofs_are_measured() -> None:
    costs = measure_witnesses(url=given_url(os.environ), sealed=3_000, rounds=2, log=print)
    assert [len(costs.seal), len(costs.seal_floor), len(costs.quorum), len(costs.proof)] == [2, 2, 2, 40]
    assert len(costs.record) == len(costs.record_floor) > 0
    assert costs.tree_size > 3_000
    assert all(row["p50"] > 0 for row in rows(costs).values())


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 0),
        ({"seal": [31.0] * 5}, 1),
        ({"proof": [21.0] * 5}, 1),
        ({"record": [1.3] * 5}, 1),
        ({"quorum": [1001.0] * 5}, 1),
    ],
)
def test_missed_goals_are_listed(change: dict[str, list[float]], count: int) -> None:
    costs = replace(COSTS, **change)  # type: ignore[arg-type]
    assert len(missed(costs)) == count
    assert len(table(costs).splitlines()) == 2 + len(rows(costs))
