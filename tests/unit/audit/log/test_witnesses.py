"""Checkpoints are cosigned by witnesses on real sockets: honest ones, ones that lie, and ones that hang."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.errors import SealingRefused
from django_phi_oidc.audit.events import parse_detail
from django_phi_oidc.audit.log import cosigned_checkpoints
from django_phi_oidc.audit.log.archive import verify_archive, write_archive
from django_phi_oidc.audit.log.cosigned_checkpoints import (
    build_cosigned_note,
    count_unwitnessed_checkpoints,
    delete_old_cosignatures,
    find_cosigned_checkpoint,
    get_witness_keys,
    verify_witnesses,
)
from django_phi_oidc.audit.log.event_removal import list_removable_partitions
from django_phi_oidc.audit.log.findings import FindingKind, VerificationSummary
from django_phi_oidc.audit.log.models import Cosignature, LogWitness
from django_phi_oidc.audit.log.recovery import resume_log
from django_phi_oidc.audit.log.verification_records import find_last_verification, record_verified_log
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.log.witnesses import ALERT_AFTER, RENEW_AFTER, submit_newest_checkpoint
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from django_phi_oidc.audit.merkle.cosignature import require_quorum
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf
from django_phi_oidc.audit.tasks import seal as seal_task
from django_phi_oidc.errors import KeyMissing
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, events, seal_now, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, QUEUE, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.witness_server import Witness, witness

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ORIGIN = "phi-oidc-audit"
Start = Callable[..., list[Witness]]
submitted_at = list[datetime]()
"""The time of the submission in progress, which the witnesses have as well."""


def read_witness_clock() -> float:
    return (submitted_at or [clock.now()])[0].timestamp()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts and declares witnesses, w1 to wN, from what each of them does."""
    with ExitStack() as stack:

        def start(*lies: str, quorum: int | None = None, known: Any = KEY) -> list[Witness]:
            witnesses = [
                stack.enter_context(
                    witness(f"witness.example/w{number}", tmp_path, {ORIGIN: known.public_key()}, lie=lie)
                )
                for number, lie in enumerate(lies, start=1)
            ]
            for running in witnesses:
                running.clock = read_witness_clock
            declared = {f"w{number}": {"key": w.vkey, "url": w.url} for number, w in enumerate(witnesses, start=1)}
            audit = {"witnesses": declared} | ({} if quorum is None else {"quorum": quorum})
            changed = override_phi_oidc(settings.PHI_OIDC, AUDIT=audit, KEYS={"audit_signing": PEM})
            stack.enter_context(override_settings(PHI_OIDC=changed))
            return witnesses

        yield start


def submit(at: datetime = NOW, **options: Any) -> dict[str, str]:
    """Submit, and return the fault of each witness that was asked."""
    submitted_at[:] = [at]
    try:
        return {result.witness: result.fault for result in submit_newest_checkpoint(clock=lambda: at, **options)}
    finally:
        submitted_at.clear()


def alerts() -> list[tuple[str, str, str]]:
    """Return rule, witness and reason of each alert."""
    rows = AuditEvent.objects.filter(action="alert.raised").order_by("id")
    return [(parse_detail(row.detail)["rule"], row.resource, row.reason) for row in rows]


def test_honest_witnesses_cosign_each_checkpoint(started: Start) -> None:
    witnesses = started("", "", "")
    for size in (3, 8):
        sealed(size - AuditLeaf.objects.count())
        assert submit() == {"w1": "", "w2": "", "w3": ""}
        note = AuditCheckpoint.objects.get(tree_size=size).note
        assert len(require_quorum(build_cosigned_note(note), get_witness_keys().values(), quorum=3)) == 3
    assert [w.read_latest(ORIGIN)[0] for w in witnesses] == [8, 8, 8]
    assert [body.partition("\n")[0] for body in witnesses[0].requests] == ["old 0", "old 3"]
    assert Cosignature.objects.count() == 6
    assert alerts() == []


def test_checkpoint_that_is_cosigned_is_not_sent_again_before_it_is_renewed(started: Start) -> None:
    started("")
    sealed(2)
    assert [submit(NOW), submit(NOW + RENEW_AFTER - timedelta(seconds=1))] == [{"w1": ""}, {}]
    assert submit(NOW + RENEW_AFTER) == {"w1": ""}
    assert Cosignature.objects.count() == 1


@contextmanager
def time_of_quorum(count: int) -> Iterator[list[float]]:
    """Yield a list that gets the seconds until another connection sees that many cosignatures."""
    begun, seen, is_over = time.monotonic(), list[float](), threading.Event()

    def watch() -> None:
        try:
            while not seen and not is_over.wait(0.01):
                if Cosignature.objects.count() >= count:
                    seen.append(time.monotonic() - begun)
        finally:
            connections.close_all()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join(10)


def test_liar_is_named_hanging_one_delays_nothing_and_the_quorum_is_reached(started: Start) -> None:
    started("", "signature", "hang", "", quorum=2)
    sealed(5)
    begun = time.monotonic()
    with time_of_quorum(2) as seen:
        faults = submit(round_seconds=1.5)
    assert time.monotonic() - begun < 2.5
    assert seen[0] < 1.0
    assert faults == {"w1": "", "w2": "witness_cosignature_invalid", "w3": "transport_timeout", "w4": ""}
    cosigned = find_cosigned_checkpoint([KEY.public_key()])
    assert cosigned is not None
    assert cosigned.checkpoint.tree_size == 5
    assert alerts() == [("witness_invalid", "Witness/w2", "witness_cosignature_invalid")]
    # The next seal asks neither of the two at once.
    sealed(1)
    begun = time.monotonic()
    assert submit(NOW + timedelta(seconds=1)) == {"w1": "", "w4": ""}
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("lie", "fault", "rule"),
    [
        ("signature", "witness_cosignature_invalid", "witness_invalid"),
        ("origin", "witness_cosignature_invalid", "witness_invalid"),
        ("other_sizes", "witness_size_invalid", "witness_invalid"),
        ("larger", "witness_log_shorter", "witness_refused"),
    ],
)
def test_lie_of_a_witness_is_an_alert_that_names_it(started: Start, lie: str, fault: str, rule: str) -> None:
    started("", lie)
    sealed(5)
    assert submit() == {"w1": "", "w2": fault}
    assert alerts() == [(rule, "Witness/w2", fault)]
    assert [row.witness for row in Cosignature.objects.all()] == ["w1"]
    # At most one alert of a rule in an hour.
    assert submit(NOW + timedelta(minutes=59)) == {"w2": fault}
    assert len(alerts()) == 1
    submit(NOW + timedelta(hours=2))
    assert len(alerts()) == 2


def test_witness_that_forgot_its_cosignature_is_named_and_cosigns_again(started: Start) -> None:
    (forgetful,) = started("")
    sealed(5)
    submit()
    for file in forgetful.folder.glob("*.json"):
        file.unlink()
    sealed(1)
    assert submit() == {"w1": ""}
    assert alerts() == [("witness_invalid", "Witness/w1", "witness_size_invalid")]


def test_size_that_only_the_witness_knows_is_no_fault(started: Start) -> None:
    """After a loss of the default database, for example."""
    started("")
    sealed(5)
    submit()
    LogWitness.objects.all().delete()
    sealed(1)
    assert submit() == {"w1": ""}
    assert alerts() == []


@pytest.mark.parametrize("lie", ["fail", "hang"])
def test_witness_that_is_away_is_an_alert_after_a_time(started: Start, lie: str) -> None:
    (away,) = started(lie)
    sealed(1)
    fault = submit(round_seconds=0.2)["w1"]
    assert fault == {"fail": "witness_response_invalid", "hang": "transport_timeout"}[lie]
    submit(NOW + ALERT_AFTER - timedelta(seconds=1), round_seconds=0.2)
    assert alerts() == []
    submit(NOW + ALERT_AFTER + timedelta(minutes=5), round_seconds=0.2)
    assert alerts() == [("witness_unavailable", "Witness/w1", fault)]
    away.lie = ""
    away.released.set()
    assert submit(NOW + ALERT_AFTER + timedelta(minutes=10)) == {"w1": ""}
    assert LogWitness.objects.get().failing_since is None


def test_witness_that_does_not_know_the_key_or_the_log_gives_its_code(started: Start) -> None:
    witnesses = started("", "", known=OTHER_KEY)
    witnesses[1].logs = {}
    sealed(1)
    assert submit() == {"w1": "witness_key_unknown", "w2": "witness_log_unknown"}


def roll_back(tree_size: int) -> None:
    """Restore the audit database as it was at that size, and forget what the default database knows of witnesses."""
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id IN (SELECT event_id FROM {LEAF} WHERE leaf_index >= {tree_size})")
        sql(f"DELETE FROM {QUEUE}")
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= {tree_size}")
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > {tree_size}")
    Cosignature.objects.filter(tree_size__gt=tree_size).delete()
    LogWitness.objects.all().delete()


@pytest.mark.parametrize(
    ("kept", "added", "fault"),
    [(4, 1, "witness_log_shorter"), (4, 4, "witness_log_inconsistent"), (0, 9, "witness_log_inconsistent")],
    ids=["rolled back", "rolled back and continued", "rewritten"],
)
def test_rollback_is_refused_in_less_than_a_second_after_sealing(
    started: Start, kept: int, added: int, fault: str
) -> None:
    started("", "", "")
    for count in (4, 3):
        events(count)
        seal_task()
    assert alerts() == []
    roll_back(kept)
    events(added, at=NOW + timedelta(days=1))
    begun = time.monotonic()
    seal_task()
    assert time.monotonic() - begun < 1.0
    assert sorted(alerts()) == [("witness_refused", f"Witness/w{number}", fault) for number in (1, 2, 3)]
    _, findings = verify_witnesses([KEY.public_key()], now=clock.now(), after=timedelta(minutes=5))
    assert [finding.kind for finding in findings] == [FindingKind.WITNESS_REFUSED] * 3


def test_sealer_does_not_sign_below_what_a_witness_has_cosigned(started: Start) -> None:
    started("")
    sealed(4)
    sealed(3)
    submit()
    state = LogWitness.objects.get()
    roll_back(4)
    events(1)
    state.save(force_insert=True)
    with pytest.raises(SealingRefused, match="A checkpoint of 7 events is known outside"):
        seal_now()
    LogWitness.objects.update(note="")
    assert seal_now().event_count == 1


def test_quorum_is_that_of_the_setting_or_more_than_half(started: Start) -> None:
    started("", "", "fail", "fail")
    sealed(1)
    submit()
    assert find_cosigned_checkpoint([KEY.public_key()]) is None
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"quorum": 2})):
        assert find_cosigned_checkpoint([KEY.public_key()]) is not None
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"quorum": 0})):
        assert find_cosigned_checkpoint([KEY.public_key()]) is None


def test_cosignature_that_was_changed_in_its_row_does_not_count(started: Start) -> None:
    started("", "", quorum=2)
    sealed(2)
    submit()
    assert find_cosigned_checkpoint([KEY.public_key()]) is not None
    assert find_cosigned_checkpoint([OTHER_KEY.public_key()]) is None
    row = Cosignature.objects.get(witness="w2")
    Cosignature.objects.filter(witness="w2").update(line=Cosignature.objects.get(witness="w1").line)
    assert find_cosigned_checkpoint([KEY.public_key()]) is None
    Cosignature.objects.filter(witness="w2").update(line=row.line, tree_size=3)
    assert find_cosigned_checkpoint([KEY.public_key()]) is None


def test_checkpoint_without_a_quorum_is_a_finding_after_a_time(started: Start) -> None:
    started("", "fail", quorum=2)
    sealed(2)
    submit()
    now = clock.now() + timedelta(days=365)
    after = timedelta(minutes=5)
    (finding,) = verify_witnesses([KEY.public_key()], now=now, after=after)[1]
    assert (finding.kind, finding.tree_size) == (FindingKind.CHECKPOINT_UNWITNESSED, 2)
    assert verify_witnesses([KEY.public_key()], now=NOW + timedelta(minutes=1), after=after)[1] == []
    assert count_unwitnessed_checkpoints(now=now) == 1
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"quorum": 1})):
        assert verify_witnesses([KEY.public_key()], now=now, after=after)[1] == []
        assert count_unwitnessed_checkpoints(now=now) == 0


def test_log_that_was_rewritten_does_not_lead_to_the_cosigned_checkpoint(started: Start) -> None:
    """By an attacker with the signing key, who did not reach the default database."""
    started("", "")
    sealed(3)
    submit()
    verified = verify_witnesses([KEY.public_key()], now=NOW, after=timedelta(minutes=5))
    assert verified[1] == []
    assert kinds(witnessed_checkpoints=verified[0]) == []
    rows, states = list(Cosignature.objects.all()), list(LogWitness.objects.all())
    roll_back(0)
    sealed(4, at=NOW + timedelta(days=1))
    for row in (*rows, *states):
        row.save()
    cosigned, findings = verify_witnesses([KEY.public_key()], now=NOW + timedelta(days=2), after=timedelta(minutes=5))
    assert [finding.kind for finding in findings] == [FindingKind.CHECKPOINT_UNWITNESSED]
    assert kinds(witnessed_checkpoints=cosigned) == [FindingKind.FORK_UNDECLARED]


def kinds(**options: Any) -> list[FindingKind]:
    """Return the kinds of the findings of a verification, without those of the triggers that the runner dropped."""
    keys, at = [KEY.public_key()], NOW + timedelta(days=2)
    found = verify_log(keys=keys, now=at, summary=VerificationSummary(), **options)
    return [finding.kind for finding in found if finding.kind is not FindingKind.PROTECTION_ALTERED]


def test_seal_task_asks_the_witnesses_and_alerts_without_a_quorum(started: Start) -> None:
    first, _ = started("", "fail")
    events(3)
    seal_task()
    assert first.read_latest(ORIGIN)[0] == 3
    assert "witness_quorum" not in [rule for rule, _, _ in alerts()]
    with without_triggers():
        sql(f"UPDATE {CHECKPOINT} SET sealed_at = %s", clock.now() - timedelta(minutes=6))
    seal_task()
    assert "witness_quorum" in [rule for rule, _, _ in alerts()]


def test_nothing_is_asked_without_witnesses_or_before_the_first_checkpoint(started: Start) -> None:
    sealed(1)
    assert submit() == {}
    assert build_cosigned_note(AuditCheckpoint.objects.get().note) == AuditCheckpoint.objects.get().note
    assert verify_witnesses([KEY.public_key()], now=clock.now(), after=timedelta(0)) == ([], [])


def test_no_request_is_sent_inside_a_transaction(started: Start) -> None:
    (asked,) = started("")
    sealed(1)
    with transaction.atomic(), pytest.raises(RuntimeError):
        submit()
    assert asked.requests == []
    assert submit() == {"w1": ""}


def test_key_of_a_log_is_no_witness_key(started: Start) -> None:
    (running,) = started("")
    wrong = {"w1": {"key": encode_verifier_key("witness.example/w1", KEY.public_key()), "url": running.url}}
    with (
        override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witnesses": wrong})),
        pytest.raises(KeyMissing, match=r"\['w1'\]\['key'\] is no verifier key for cosignatures"),
    ):
        submit()


def root_at(size: int) -> bytes:
    return bytes(AuditCheckpoint.objects.get(tree_size=size).root_hash)


@pytest.mark.parametrize(("answering", "recorded"), [(1, None), (2, 5)])
def test_verification_is_recorded_up_to_what_a_quorum_has_cosigned(
    started: Start, answering: int, recorded: int | None
) -> None:
    witnesses = started("", "", quorum=2)
    if answering < 2:
        witnesses[1].lie = "fail"
    sealed(5)
    submit()
    sealed(2, at=NOW + timedelta(minutes=1))
    record_verified_log(7, root_at(7), key=KEY, now=NOW)
    last = find_last_verification([KEY.public_key()])
    assert (last.checkpoint.tree_size if last else None) == recorded


def test_old_cosignatures_are_deleted_after_a_newer_quorum(
    started: Start, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(cosigned_checkpoints, "KEPT_COSIGNATURES", 3)
    witnesses = started("", "", quorum=2)
    for minute in range(5):
        if minute == 3:
            witnesses[1].lie = "fail"
        sealed(1, at=NOW + timedelta(minutes=minute))
        submit(NOW + timedelta(minutes=minute))
    assert find_cosigned_checkpoint([KEY.public_key()]).checkpoint.tree_size == 3
    assert Cosignature.objects.count() == 8
    Cosignature.objects.filter(tree_size=5).update(origin=f"{ORIGIN}/epoch-2")
    with django_assert_num_queries(9):
        assert delete_old_cosignatures() == 4
    # The newest three of an epoch, and those of the newest quorum.
    assert sorted(Cosignature.objects.values_list("tree_size", flat=True)) == [3, 3, 4, 5]
    assert find_cosigned_checkpoint([KEY.public_key()]).checkpoint.tree_size == 3
    assert delete_old_cosignatures() == 0


def test_cosignature_of_an_earlier_epoch_does_not_cover_a_larger_log_of_a_later_one(started: Start) -> None:
    """After a restore, no witness has seen the log of the new epoch, although it is smaller."""
    started("", "", quorum=2)
    sealed(3)
    note = AuditCheckpoint.objects.get(tree_size=3).note
    sealed(5, at=NOW + timedelta(minutes=1))
    submit()
    states, rows = list(LogWitness.objects.all()), list(Cosignature.objects.all())
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id IN (SELECT event_id FROM {LEAF} WHERE leaf_index >= 3)")
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= 3")
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > 3")
    lost = states[0].note
    assert note != lost
    resume_log(witnessed_note=lost, reason="a test", key=KEY, now=NOW + timedelta(minutes=2))
    sealed(2, at=NOW + timedelta(minutes=3))
    size = AuditCheckpoint.objects.last().tree_size
    assert size <= 8
    assert len(rows) == 2
    record_verified_log(size, root_at(size), key=KEY, now=NOW)
    assert find_last_verification([KEY.public_key()]) is None


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        ("redirect", "transport_redirect"),
        ("huge", "transport_too_large"),
        ("endless", "transport_timeout"),
        ("many_lines", "witness_cosignature_invalid"),
        ("replay", "witness_cosignature_invalid"),
        ("time_zero", "witness_cosignature_invalid"),
        ("future", "witness_cosignature_invalid"),
    ],
)
def test_hostile_response_is_a_fault_and_delays_nothing(started: Start, lie: str, fault: str) -> None:
    started("", lie)
    sealed(5)
    begun = time.monotonic()
    assert submit(round_seconds=1.0) == {"w1": "", "w2": fault}
    assert time.monotonic() - begun < 2.0
    assert [row.witness for row in Cosignature.objects.all()] == ["w1"]


def test_cosignature_that_is_replayed_does_not_renew_an_older_one(started: Start) -> None:
    (running,) = started("")
    sealed(5)
    assert submit() == {"w1": ""}
    later = NOW + timedelta(days=2)
    running.clock = NOW.timestamp
    assert submit(later) == {"w1": "witness_cosignature_invalid"}
    running.clock = later.timestamp
    assert submit(later + timedelta(hours=1)) == {"w1": ""}


@pytest.mark.parametrize("changes", [{"tree_size": -5}, {"cosigned_at": NOW + timedelta(days=9)}])
def test_state_that_was_altered_in_its_row_keeps_no_witness_from_being_asked(
    started: Start, changes: dict[str, Any]
) -> None:
    started("", "")
    sealed(5)
    submit()
    LogWitness.objects.filter(name="w1").update(**changes)
    assert submit(NOW + RENEW_AFTER) == {"w1": "", "w2": ""}


def test_partition_is_detached_only_if_a_quorum_has_cosigned_its_archive(started: Start, tmp_path: Path) -> None:
    witnesses = started("", "fail", quorum=2)
    sealed(3)
    submit()
    keys, path = [KEY.public_key()], tmp_path / "archive"
    write_archive(path, first_leaf_index=0, tree_size=3, progress=lambda done, total: None)
    archive = verify_archive(path, keys)
    with pytest.raises(LookupError, match="not known outside"):
        list_removable_partitions(archive, keys=keys, now=NOW)
    witnesses[1].lie = ""
    submit(only_due=False)
    assert list_removable_partitions(archive, keys=keys, now=NOW) == ([], "")
