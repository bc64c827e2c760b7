"""The benchmark under gunicorn works at a hundredth of its size, and reports missed goals."""

import os
import shutil
from dataclasses import replace
from importlib.util import find_spec

import pytest

from tests.benchmarks.deployment import sustained
from tests.benchmarks.deployment.browsers import LEAVE
from tests.benchmarks.deployment.report import LEAST_THROUGHPUT, MOST_WAL, list_goals, missed, rows, table
from tests.benchmarks.deployment.sustained import Sample, SustainedLoad, measure_sustained
from tests.benchmarks.deployment.throughput import MeasuredTurn, Results, measure_deployment
from tests.support.postgresql import given_url

CONTENDERS = ["bare", "phi_oidc", "mozilla", "allauth", "social"]
needs_contenders = pytest.mark.skipif(
    find_spec("social_django") is None, reason="social-auth-app-django is not installed: `make bench` installs it"
)
needs_redis_server = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
TURN = MeasuredTurn(
    visits=10,
    seconds=1.0,
    cpu_seconds=0.1,
    database_cpu_seconds=0.05,
    wal_bytes=50_000,
    requests=10,
    visit_seconds=[0.1] * 10,
    errors=[],
)


@needs_contenders
@needs_redis_server
@pytest.mark.postgresql
def test_measurement_makes_each_visit_at_each_portal_without_errors() -> None:
    results = measure_deployment(
        url=given_url(os.environ), turns=1, visits=16, log=print, contenders=CONTENDERS, round_trips=[0.0]
    )
    all_portals = {"returning", "new", "page"}
    assert {scenario: list(measured) for (scenario, _), measured in results.turns.items()} == {
        **dict.fromkeys(sorted(all_portals), CONTENDERS),
        **{scenario: list(LEAVE) for scenario in ("logout", "returning, Redis")},
    }
    for row in rows(results)["visits"]:
        assert row["errors"] == 0, (row, missed(results))
        assert row["p50"] <= row["p95"]
        assert row["cpu"] >= 0
    # A process fetches metadata and keys with its first sign-in.
    requests = {
        (row["scenario"], row["portal"]): round(row["requests"])
        for row in rows(results)["visits"]
        if row["portal"] in LEAVE
    }
    assert requests == {
        (scenario, portal): {"page": 0, "logout": 2}.get(scenario, 1)
        for scenario in (*all_portals, "logout", "returning, Redis")
        for portal in LEAVE
    }
    assert {row["portal"] for row in rows(results)["portals"]} == set(CONTENDERS)
    goals = list(list_goals(results))
    assert len(goals) == len(LEAST_THROUGHPUT) - 4 + len({"CPU", "kept", "memory"}) + len(MOST_WAL)
    # Two lines of the head of each table, and an empty one between them.
    assert table(results).count("\n") == len(rows(results)["visits"]) + len(CONTENDERS) + len(goals) + 7


@needs_redis_server
@pytest.mark.postgresql
def test_sustained_load_samples_memory_latency_and_rows() -> None:
    load = measure_sustained(url=given_url(os.environ), minutes=0.1, visits=16, log=print)
    assert (len(load.samples), load.errors) == (6, [])
    for sample in load.samples:
        assert set(sample.memory) == {"gunicorn", "celery"}
        assert sample.visit_seconds
        assert sample.bare_seconds
    assert load.samples[-1].rows["phi_oidc_audit_auditevent"] > load.samples[0].rows["phi_oidc_audit_auditevent"]
    assert "visits at 70% of" in sustained.table(load)


def results_with(
    scenario: str, round_trip: float = 0.0, *, memory: float = 9e6, kept: float = 3e3, **values: float
) -> Results:
    turns = {"bare": [TURN] * 3, "phi_oidc": [replace(TURN, **values)] * 3}
    return Results(
        turns={(scenario, round_trip): turns},
        worker_bytes={"bare": 60e6, "phi_oidc": 60e6 + memory},
        kept_bytes={"bare": 600, "phi_oidc": kept},
    )


@pytest.mark.sqlite
@pytest.mark.parametrize(("scenario", "milliseconds"), LEAST_THROUGHPUT)
def test_missed_throughput_is_named_only_below_the_limit(scenario: str, milliseconds: int) -> None:
    least = LEAST_THROUGHPUT[scenario, milliseconds]
    assert missed(results_with(scenario, milliseconds / 1000, seconds=0.99 / least)) == []
    (line,) = missed(results_with(scenario, milliseconds / 1000, seconds=1.02 / least))
    assert f"the goal is at least {least:.2f}" in line
    assert "| missed |" in table(results_with(scenario, milliseconds / 1000, seconds=1.02 / least))


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("results", "text"),
    [
        (results_with("logout", cpu_seconds=0.21), "CPU time of bare: 2.10, the goal is at most 2.00"),
        (results_with("logout", wal_bytes=61_000), "WAL: 6.1 KB, the goal is at most 6.0 KB"),
        (results_with("page", memory=11e6), "a worker, more than bare: 11.0 MB, the goal is at most 10.0 MB"),
        (results_with("page", kept=4.1e3), "kept of a sign-in: 4.1 KB, the goal is at most 4.0 KB"),
    ],
)
def test_missed_costs_are_named(results: Results, text: str) -> None:
    (line,) = missed(results)
    assert text in line


@pytest.mark.sqlite
def test_errors_of_each_portal_are_named() -> None:
    results = results_with("page")
    results.turns["page", 0.0]["bare"] = [replace(TURN, errors=["page at bare: 500"])] * 3
    assert missed(results) == ["3 errors of bare, page at 0 ms: page at bare: 500"]


def load_with(
    *, memory: float = 1.04, seconds: float = 1.2, bare: float = 1.0, kept: int = 1_000, unmeant: int = 100
) -> SustainedLoad:
    """Return a load whose last sample differs from the first two: by factors, and by rows."""

    def sample(minute: float, factor: float, latency: float, bare_latency: float, *added: int) -> Sample:
        names = ("phi_oidc_audit_auditevent", "phi_oidc_audit_auditoutbox")
        return Sample(
            minute=minute,
            memory={"gunicorn": factor * 1e8},
            rows=dict(zip(names, added, strict=True)),
            visit_seconds=[latency * 0.1],
            bare_seconds=[bare_latency * 0.05],
        )

    last = sample(3, memory, seconds, bare, kept, unmeant)
    return SustainedLoad(40.0, [], [sample(1, 1, 1, 1, 0, 0), sample(2, 1, 1, 1, 0, 0), last])


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("load", "text"),
    [
        (load_with(memory=1.06), "the memory of gunicorn grew to 1.06"),
        (load_with(seconds=1.3), "the median of a visit, compared with the bare view, grew to 1.30"),
        (load_with(bare=0.8), "the median of a visit, compared with the bare view, grew to 1.50"),
        (load_with(unmeant=101), "auditoutbox grew from 0 to 101 rows"),
    ],
)
def test_sustained_load_that_is_not_flat_is_named(load: SustainedLoad, text: str) -> None:
    assert sustained.missed(load_with()) == []
    (line,) = sustained.missed(load)
    assert text in line
    assert "0 errors: not flat" in sustained.table(load)
    assert "0 errors: flat" in sustained.table(load_with())


@pytest.mark.sqlite
def test_sustained_load_on_a_machine_that_becomes_slower_is_flat() -> None:
    assert sustained.missed(load_with(seconds=1.5, bare=1.3)) == []
