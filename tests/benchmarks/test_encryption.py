"""The benchmark of sealing works at a hundredth of its size, and reports missed goals."""

import os
from dataclasses import replace

import pytest

from tests.benchmarks.encryption.report import missed, rows, table
from tests.benchmarks.encryption.rotation_throughput import Comparison, Results, Took, measure_encryption
from tests.support.postgresql import given_url


@pytest.mark.postgresql
def test_measurement_rotates_every_text_with_each_contender() -> None:
    results = measure_encryption(url=given_url(os.environ), texts=2_000, log=print)
    assert {name: took.texts for name, took in results.rotated.items()} == {
        "floor": 2_000,
        "phi_oidc": 2_000,
        "naive": 200,
    }
    for took in (*results.rotated.values(), results.small):
        assert 0 < took.cpu < 3 * took.wall
    assert 20e6 < results.small.peak < 500e6
    for comparison in results.comparisons.values():
        assert 0 < comparison.encrypt < comparison.seal
        assert 0 < comparison.decrypt < comparison.open_sealed
    assert results.comparisons["token"].bytes > 2_000 > results.comparisons["birthdate"].bytes


AT_LIMIT = Took(texts=60_000, wall=2.0, cpu=1.5, counted=0.2, peak=80_000_000)
SEALED = Comparison(bytes=96, seal=8e-6, encrypt=5e-6, open_sealed=9.6e-6, decrypt=6e-6)


def results_with(*, phi_oidc: Took = AT_LIMIT, birthdate: Comparison = SEALED, token: Comparison = SEALED) -> Results:
    floor, naive = replace(AT_LIMIT, wall=1.5), replace(AT_LIMIT, texts=6_000)
    return Results(
        rotated={"floor": floor, "phi_oidc": phi_oidc, "naive": naive},
        small=replace(AT_LIMIT, texts=6_000, peak=75_000_000),
        comparisons={"birthdate": birthdate, "token": token},
    )


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("results", "text"),
    [
        (results_with(phi_oidc=replace(AT_LIMIT, wall=2.1)), "28,571 texts/s"),
        (results_with(phi_oidc=replace(AT_LIMIT, peak=81_000_000)), "6 MB more"),
        (results_with(birthdate=replace(SEALED, seal=8.1e-6)), "seal takes 1.62"),
        (results_with(birthdate=replace(SEALED, open_sealed=9.7e-6)), "open_sealed takes 1.62"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(results: Results, text: str) -> None:
    assert missed(results_with()) == []
    assert missed(results_with(token=replace(SEALED, seal=9e-6))) == []
    (line,) = missed(results)
    assert text in line


@pytest.mark.sqlite
def test_table_shows_every_contender_and_call() -> None:
    rotated, sealed = table(results_with()).split("\n\n")
    assert "| phi_oidc | 60,000 | 30,000 | 0.75 | 25.0 | 0.20 | 80 |" in rotated
    assert "| naive | 6,000 | 3,000 | 0.07 |" in rotated
    assert "| birthdate | 96 | `open_sealed` | 9.6 | × 1.60 |" in sealed
    assert rows(results_with())["sealing"][0]["of_fernet"] == pytest.approx(1.6)
