"""The benchmark works at a hundredth of its size or less, and reports missed goals."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.db import connections

from django_phi_oidc.audit.log import sequencer, verifier
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.signing_keys import get_public_keys
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditNode, AuditUnsealed
from tests.benchmarks.audit.log_throughput import Took, Trail, measure_log
from tests.benchmarks.audit.report import Results, missed, rows, table
from tests.benchmarks.audit.trail_builder import build_genuine, build_sealed, tamper
from tests.benchmarks.audit.write_throughput import Rates, Written, measure_writes
from tests.support.audit_log import KEY, NOW, PEM
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.postgresql import given_url

BACKLOG = 2_000
SEALED = 70_000
"""More than one node of level 16."""


@pytest.mark.postgresql
def test_measurement_counts_only_committed_events() -> None:
    contenders = ["bare", "phi_oidc", "eight at once", "phi_oidc, no wait", "orm", "chain"]
    recorded, written = measure_writes(
        contenders, url=given_url(os.environ), writers=[(2, 1), (1, 1), (1, 2)], rounds=1, seconds=0.1, log=print
    )
    assert list(recorded) == [(2, 1), (1, 1), (1, 2)]
    for writers in recorded.values():
        assert list(writers) == contenders
        for contender, rates in writers.items():
            assert rates.rates[0] > 0, contender
            assert 0 < rates.cpu[0] * rates.rates[0] < 2, contender
    for contender, each in written.items():
        turns = sum(round(of[contender].rates[0] * 0.1) for of in recorded.values())
        assert each == Written(reported=each.found, found=each.found), contender
        assert turns < each.found, contender


@pytest.mark.postgresql
def test_measurement_seals_and_verifies_the_log_in_separate_processes() -> None:
    trail = measure_log(url=given_url(os.environ), backlog=BACKLOG, verifications=1, log=print)
    assert trail.backlog.events == trail.floor.events == BACKLOG
    (verified,) = trail.verified
    assert verified.events == BACKLOG
    assert 0 < verified.cpu < 10 * verified.wall
    assert 20e6 < verified.peak < 500e6


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_built_events_verify_until_one_is_changed(settings: pytest.FixtureRequest) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    build_genuine(BACKLOG)
    (done,) = sequencer.append_all_to_log(key=KEY, clock=lambda: NOW)
    assert (done.event_count, done.refused_count) == (BACKLOG, 0)
    summary = VerificationSummary()
    assert list(verifier.verify_log(keys=get_public_keys(), now=datetime.now(UTC), summary=summary)) == []
    assert (summary.events, summary.tree_size) == (BACKLOG, BACKLOG)
    changed = tamper()
    (finding,) = verifier.verify_log(keys=get_public_keys(), now=datetime.now(UTC), summary=VerificationSummary())
    assert (finding.kind, finding.event_id) == ("event_altered", changed)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_built_log_can_be_extended_by_the_sequencer(settings: pytest.FixtureRequest) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    before = _indexes()
    build_sealed(SEALED)
    assert _indexes() == before
    assert (AuditEvent.objects.count(), AuditLeaf.objects.count(), AuditUnsealed.objects.count()) == (SEALED, SEALED, 0)
    assert AuditNode.objects.count() == SEALED // 256 + SEALED // 65_536
    build_genuine(100)
    (done,) = sequencer.append_all_to_log(key=KEY, clock=lambda: NOW)
    assert done.event_count == 100
    assert list(AuditCheckpoint.objects.values_list("tree_size", flat=True)) == [SEALED, SEALED + 100]


def _indexes() -> list[tuple[str, str]]:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'phi_oidc_audit_audit%' ORDER BY 1"
        )
        return list(cursor.fetchall())


AT_LIMIT = Took(events=300_000, wall=2.0, cpu=1.5, server_cpu=1.8, peak=150_000_000)
TRAIL = Trail(
    backlog=replace(AT_LIMIT, wall=3.0),
    verified=[replace(AT_LIMIT, wall=9.0), replace(AT_LIMIT, wall=3.0), replace(AT_LIMIT, wall=1.0)],
    floor=AT_LIMIT,
)


def results_with(*, phi_oidc: float = 700.0, **trail: object) -> Results:
    recorded = {
        writers: {"bare": Rates([1000.0, 2000.0], [1e-4] * 2), "phi_oidc": Rates([rate, 2 * rate], [2e-4] * 2)}
        for writers, rate in (((8, 1), phi_oidc), ((2, 4), 100.0))
    }
    return Results(recorded=recorded, trail=replace(TRAIL, **trail), cores=2, load=0.5)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"phi_oidc": 690.0}, "0.69 of the bare INSERT's rate with 8 writers"),
        ({"backlog": replace(AT_LIMIT, wall=3.1)}, "96,774 events/s sealed"),
        ({"verified": [replace(AT_LIMIT, wall=3.1)]}, "96,774 events/s verified"),
        ({"verified": [replace(AT_LIMIT, peak=151_000_000)]}, "151 MB"),
    ],
)
def test_missed_goals_are_named_only_beyond_the_limit(changed: dict[str, object], text: str) -> None:
    assert missed(results_with()) == []
    (line,) = missed(results_with(**changed))
    assert text in line


@pytest.mark.sqlite
def test_table_shows_every_contender_and_task() -> None:
    recorded, worked = table(results_with()).split("\n\n")
    assert "| 8 × 1 | phi_oidc | 1,050 | 0.70 | 200 |" in recorded
    assert "| 2 × 4 | phi_oidc | 150 | 0.10 | 200 |" in recorded
    assert "| verify | 300,000 | 3.00 | 100,000 | 5.0 | 6.0 | 150 |" in worked
    elsewhere = table(results_with(backlog=replace(AT_LIMIT, server_cpu=None, peak=0)))
    assert "| seal a backlog | 300,000 | 2.00 | 150,000 | 5.0 | ? |  |" in elsewhere
    assert rows(results_with())["cores"] == 2
