"""The benchmark of the start works, and reports missed goals."""

import pytest

from tests.benchmarks.startup.process_costs import ADMIN, COMPARED, Results, StartCost, WorkerMemory, start_process
from tests.benchmarks.startup.report import missed, rows, table


@pytest.mark.parametrize("contender", COMPARED)
def test_each_contender_starts(contender: str) -> None:
    pytest.importorskip({"mozilla": "mozilla_django_oidc", "allauth": "allauth"}.get(contender, "django"))
    cost = start_process(contender)
    assert cost["wall_ms"] > 0
    assert cost["cpu_ms"] > 0
    assert cost["resident_mb"] > 10
    assert ("django.contrib.admin" in cost["modules"]) is contender.endswith(ADMIN)


def build_results(*, cpu_ms: float, signed_in: float) -> Results:
    bare, other = StartCost(wall_ms=[10.0], cpu_ms=[10.0]), StartCost(wall_ms=[14.0], cpu_ms=[cpu_ms])
    return Results(
        starts={contender: bare if contender.startswith("bare") else other for contender in COMPARED},
        workers={
            "bare": WorkerMemory(first_page=60, signed_in=61),
            "phi_oidc": WorkerMemory(first_page=70, signed_in=signed_in),
        },
    )


def test_only_missed_goals_are_named() -> None:
    good, bad = build_results(cpu_ms=14, signed_in=71), build_results(cpu_ms=15, signed_in=72)
    assert missed(good) == []
    assert missed(bad) == [
        "a start takes 1.50 of bare (CPU), the goal is 1.4",
        "a worker needs 11.0 MB more than bare (signed_in), the goal is 10",
    ]
    assert "| phi_oidc | 14 | 14 | × 1.40 | × 1.40 |" in table(good)
    assert "| bare | 60.0 | 61.0 |" in table(good)
    assert rows(good)["workers"]["bare"] == {"first_page": 60, "signed_in": 61}


def test_share_of_an_app_is_printed_and_limited() -> None:
    results = build_results(cpu_ms=14, signed_in=71)
    app = StartCost(wall_ms=[310.0], cpu_ms=[314.0], resident_mb=2.5, modules=3)
    starts = {**results.starts, "phi_oidc + scim": app}
    assert "| phi_oidc + scim | +300 | +2.5 | +3 |" in table(Results(starts=starts, workers=results.workers))
    assert missed(Results(starts=starts, workers=results.workers)) == []

    slower = {**starts, "phi_oidc + scim": StartCost(wall_ms=[310.0], cpu_ms=[315.0])}
    assert missed(Results(starts=slower, workers=results.workers)) == [
        "phi_oidc + scim adds 301 ms to the start, the goal is 300"
    ]
