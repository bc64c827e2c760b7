"""Verification of what is new, of a sample, and on a schedule: what each finds, and how its records are protected."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from os import urandom
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.log import verification_schedule
from django_phi_oidc.audit.log.ranges import align_part, draw_sample
from django_phi_oidc.audit.log.tree_storage import read_nodes
from django_phi_oidc.audit.log.verification_records import (
    find_last_verification,
    read_record,
    record_verified_log,
    write_record,
)
from django_phi_oidc.audit.log.verification_schedule import CYCLE, verify_next_part
from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, RetiredKey, sign_checkpoint
from django_phi_oidc.audit.merkle.proof import compute_root_at_size
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditNode, AuditWitness, VerificationRecord
from django_phi_oidc.audit.tasks import verify
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, events, seal_now, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, NODE, QUEUE, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
DAY = timedelta(days=1)
BATCHES = (5, 300, 7)
KEYS = [KEY.public_key()]


@pytest.fixture(autouse=True)
def _with_key() -> Iterator[None]:
    with (
        override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})),
        clock.override_clock(lambda: NOW + timedelta(hours=1)),
    ):
        yield


@pytest.fixture
def ids() -> list[uuid.UUID]:
    """Return the ids of 312 events in leaf order, sealed in three batches."""
    return [id_ for number, count in enumerate(BATCHES) for id_ in sealed(count, at=NOW + timedelta(minutes=number))]


@pytest.fixture
def run_verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that runs `audit verify`, and returns its findings and its totals."""

    def run(*arguments: object) -> list[dict[str, Any]]:
        capsys.readouterr()
        with suppress(CommandError):
            call_command("phi_oidc", "audit", "verify", "--json", *map(str, arguments))
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def kinds(rows: list[dict[str, Any]]) -> dict[str, int]:
    return rows[-1]["found"]


def alter(id_: uuid.UUID) -> None:
    with without_triggers():
        assert sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", id_) == 1


def test_second_verification_reads_only_what_is_new(ids: list[uuid.UUID], run_verify: Callable[..., Any]) -> None:
    (first,) = run_verify()
    assert (first["first"], first["events"], first["tree_size"]) == (0, 312, 312)
    sealed(4, at=NOW + timedelta(hours=1))
    (second,) = run_verify()
    # With the event of the first verification.
    assert (second["first"], second["events"], second["tree_size"]) == (312, 5, 317)
    details = [json.loads(event.detail) for event in AuditEvent.objects.filter(action="audit.verified")]
    assert {"tree_size": 317, "events": 5, "findings": 0, "first": 312, "kinds": []} in details
    (whole,) = run_verify("--full")
    assert (whole["first"], whole["events"], whole["faults"]) == (0, 317, 0)


NEW_TAMPERING: dict[str, tuple[Callable[[list[uuid.UUID]], object], str]] = {
    "a new event altered": (lambda new: sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", new[2]), "event_altered"),
    "a new event deleted": (lambda new: sql(f"DELETE FROM {EVENT} WHERE id = %s", new[2]), "event_missing"),
    "a new leaf altered": (
        lambda new: sql(f"UPDATE {LEAF} SET leaf_hash = %s WHERE event_id = %s", b"\x02" * 32, new[2]),
        "event_altered",
    ),
    "a leaf added": (
        lambda new: sql(f"INSERT INTO {LEAF} VALUES (900, %s, %s)", uuid.uuid4(), bytes(32)),
        "tree_altered",
    ),
    "the new checkpoint altered": (
        lambda new: sql(f"UPDATE {CHECKPOINT} SET root_hash = %s WHERE tree_size > 312", bytes(32)),
        "tree_altered",
    ),
    "a node added": (lambda new: sql(f"INSERT INTO {NODE} VALUES (8, 90, %s)", bytes(32)), "tree_altered"),
}


@pytest.mark.parametrize(("tamper", "kind"), NEW_TAMPERING.values(), ids=NEW_TAMPERING)
def test_new_part_is_verified_as_in_a_full_verification(
    ids: list[uuid.UUID], run_verify: Callable[..., Any], tamper: Callable[[list[uuid.UUID]], object], kind: str
) -> None:
    run_verify()
    new = sealed(4, at=NOW + timedelta(minutes=10))
    assert kinds(run_verify()) == {}
    VerificationRecord.objects.all().delete()
    run_verify()
    newer = sealed(4, at=NOW + timedelta(minutes=20))
    with without_triggers():
        tamper(newer)
    assert run_verify()[-1]["first"] > 312
    assert set(kinds(run_verify())) == {kind} == set(kinds(run_verify("--full")))
    assert new


def test_verification_with_faults_is_not_recorded(ids: list[uuid.UUID], run_verify: Callable[..., Any]) -> None:
    run_verify()
    (victim,) = sealed(1, at=NOW + timedelta(minutes=10))
    alter(victim)
    for _ in range(2):
        rows = run_verify()
        assert (rows[-1]["first"], kinds(rows)) == (312, {"event_altered": 1})


def test_limit_old_event_is_found_by_full_sample_and_schedule_only(
    ids: list[uuid.UUID], run_verify: Callable[..., Any]
) -> None:
    run_verify()
    alter(ids[150])
    assert kinds(run_verify()) == {}
    assert kinds(run_verify("--sample", "1")) == {"event_altered": 1}
    assert kinds(run_verify("--full")) == {"event_altered": 1}


@pytest.mark.parametrize("is_queued", [True, False])
def test_old_forged_event_is_found_by_default_if_it_is_queued_or_young(
    ids: list[uuid.UUID], run_verify: Callable[..., Any], *, is_queued: bool
) -> None:
    run_verify()
    old, young = (events(1, at=NOW + delay)[0] for delay in (-2 * DAY, timedelta(minutes=30)))
    with without_triggers():
        for id_ in (old, young):
            sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", id_)
            if not is_queued:
                sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", id_)
    found = [row["event_id"] for row in run_verify()[:-1]]
    assert found == ([str(old), str(young)] if is_queued else [str(young)])
    assert {row["event_id"] for row in run_verify("--full")[:-1]} == {str(old), str(young)}


def test_altered_node_before_the_record_makes_the_verification_full(
    ids: list[uuid.UUID], run_verify: Callable[..., Any]
) -> None:
    run_verify()
    with without_triggers():
        sql(f"UPDATE {NODE} SET node_hash = %s", b"\x04" * 32)
    rows = run_verify()
    assert (rows[-1]["first"], rows[-1]["events"] >= 312, kinds(rows)) == (0, True, {"tree_altered": 1})


def test_log_that_was_cut_is_found_by_the_record(ids: list[uuid.UUID], run_verify: Callable[..., Any]) -> None:
    run_verify()
    with without_triggers():
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > 305")
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= 305")
        sql(f"DELETE FROM {QUEUE}")
        for id_ in ids[305:]:
            sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)
    assert kinds(run_verify())["log_truncated"] == 1
    VerificationRecord.objects.all().delete()
    assert "log_truncated" not in kinds(run_verify())


def forge(note: str) -> None:
    VerificationRecord.objects.update_or_create(name="log", defaults={"note": note})


def test_record_that_is_not_signed_by_the_key_is_ignored(ids: list[uuid.UUID], run_verify: Callable[..., Any]) -> None:
    run_verify()
    own = VerificationRecord.objects.get(name="log").note
    content = read_record("log", KEYS)
    write_record("log", content, OTHER_KEY)
    other = VerificationRecord.objects.get(name="log").note
    write_record("schedule", content, KEY)
    of_another_name = VerificationRecord.objects.get(name="schedule").note
    for note in (other, of_another_name, own.replace("2026", "2027"), "x", AuditCheckpoint.objects.last().note):
        forge(note)
        assert find_last_verification(KEYS) is None
    forge(own)
    assert find_last_verification(KEYS).checkpoint.tree_size == 312
    assert find_last_verification([RetiredKey(KEY.public_key(), 10**6)]) is None


def test_older_record_that_is_put_back_makes_the_range_longer(
    ids: list[uuid.UUID], run_verify: Callable[..., Any]
) -> None:
    run_verify()
    old = VerificationRecord.objects.get(name="log").note
    victim = sealed(1, at=NOW + timedelta(minutes=10))[0]
    run_verify()
    alter(victim)
    assert kinds(run_verify()) == {}
    forge(old)
    assert kinds(run_verify()) == {"event_altered": 1}


def test_process_without_the_signing_key_reads_the_record_and_writes_none(
    ids: list[uuid.UUID], run_verify: Callable[..., Any]
) -> None:
    public = {"audit_signing": None, "audit_public": [base64.b64encode(KEY.public_key().public_bytes_raw()).decode()]}
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS=public)):
        assert run_verify()[-1]["events"] == 312
        assert not VerificationRecord.objects.exists()
    run_verify()
    sealed(1, at=NOW + timedelta(minutes=10))
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS=public)):
        assert [run_verify()[-1]["first"] for _ in range(2)] == [312, 312]


def test_record_is_not_beyond_what_is_witnessed_outside(ids: list[uuid.UUID], run_verify: Callable[..., Any]) -> None:
    AuditWitness.objects.create(origin="phi-oidc-audit", note=AuditCheckpoint.objects.get(tree_size=305).note)
    run_verify()
    assert find_last_verification(KEYS).checkpoint.tree_size == 305


def test_log_that_was_replaced_after_its_verification_is_not_recorded(ids: list[uuid.UUID]) -> None:
    row = AuditCheckpoint.objects.last()
    root, note = bytes(row.root_hash), row.note
    other = sign_checkpoint(Checkpoint(origin="phi-oidc-audit", tree_size=312, root_hash=b"\x06" * 32), KEY)
    for replaced, size, recorded in ((other, 312, None), ("x", 312, None), (note, 311, 305), (note, 312, 312)):
        with without_triggers():
            sql(f"UPDATE {CHECKPOINT} SET note = %s WHERE tree_size = 312", replaced)
        record_verified_log(size, root if size == 312 else compute_root_at_size(size, read_nodes), key=KEY, now=NOW)
        last = find_last_verification(KEYS)
        assert (last.checkpoint.tree_size if last else None) == recorded
    VerificationRecord.objects.all().delete()
    record_verified_log(312, b"\x06" * 32, key=KEY, now=NOW)
    assert find_last_verification(KEYS) is None


def claim_more_events() -> None:
    """Insert a checkpoint of a size that no key has signed."""
    statement = f"INSERT INTO {CHECKPOINT} SELECT %s, root_hash, epoch, sealed_at, note FROM {CHECKPOINT} LIMIT 1"
    with without_triggers():
        sql(statement, 2**62)


def test_sample_and_schedule_read_the_log_although_a_checkpoint_claims_more_events(
    ids: list[uuid.UUID], run_verify: Callable[..., Any]
) -> None:
    claim_more_events()
    rows = run_verify("--sample", "1")
    assert (rows[-1]["events"], kinds(rows)) == (312, {"tree_altered": 1})
    summary = verify_next_part(KEY, now=clock.now())
    assert summary.events > 0
    assert summary.counts_by_kind == {"tree_altered": 1}
    assert schedule_state()["position"] <= 312


def test_schedule_reports_a_log_without_a_valid_checkpoint(ids: list[uuid.UUID]) -> None:
    with without_triggers():
        sql(f"UPDATE {CHECKPOINT} SET note = %s", "x")
    # The checkpoints, and what they no longer cover: the leaves, and the node over 256 of them.
    assert verify_next_part(KEY, now=NOW + DAY).counts_by_kind["tree_altered"] == len(BATCHES) + 312 + 1
    assert AuditEvent.objects.filter(action="audit.verified", outcome="failure").count() == 1


def test_smaller_checkpoint_kept_outside_is_compared_with_what_was_verified_before(
    ids: list[uuid.UUID], run_verify: Callable[..., Any], tmp_path: Path
) -> None:
    run_verify()
    file = tmp_path / "checkpoint"
    file.write_text(AuditCheckpoint.objects.get(tree_size=5).note)
    assert kinds(run_verify("--checkpoint", file)) == {}
    forged = Checkpoint(origin="phi-oidc-audit", tree_size=5, root_hash=b"\x06" * 32)
    file.write_text(sign_checkpoint(forged, KEY))
    assert kinds(run_verify("--checkpoint", file)) == {"fork_undeclared": 1}


@pytest.mark.parametrize("share", ["0", "-1", "1.1", "x", "nan"])
def test_wrong_share_is_refused(share: str) -> None:
    with pytest.raises(CommandError):
        call_command("phi_oidc", "audit", "verify", f"--sample={share}")


def test_sample_has_the_share_and_every_event_can_be_drawn() -> None:
    sizes = [sum(end - start for start, end in draw_sample(0.1, 1_000_000)) for _ in range(20)]
    assert set(sizes) == {100_000}
    drawn = {start for _ in range(200) for start, _ in draw_sample(0.1, 1_000_000)}
    assert drawn == set(range(0, 1_000_000, 1_000))
    assert draw_sample(1, 312) == [(index, index + 1) for index in range(312)]
    assert draw_sample(0.5, 0) == []


def test_sample_is_verified_between_checkpoints(ids: list[uuid.UUID], run_verify: Callable[..., Any]) -> None:
    (totals,) = run_verify("--sample", "1")
    assert (totals["events"], totals["checkpoints"], totals["faults"]) == (312, 3, 0)
    with without_triggers():
        sql(f"UPDATE {NODE} SET node_hash = %s", b"\x04" * 32)
    rows = run_verify("--sample", "1")
    assert set(kinds(rows)) == {"tree_altered"}


def test_missing_event_is_no_fault_of_a_sample_if_it_is_archived(
    ids: list[uuid.UUID], run_verify: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "archive.jsonl"
    call_command("phi_oidc", "audit", "archive", str(file))
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", ids[150])
    assert kinds(run_verify("--sample", "1")) == {}
    assert kinds(run_verify("--full")) == {"event_missing": 1}
    assert kinds(run_verify("--archive", file)) == {}
    alter(ids[151])
    assert kinds(run_verify("--sample", "1")) == {"event_altered": 1}
    # Without a valid MAC, the event of the archive excuses nothing.
    alter(AuditEvent.objects.get(action="audit.archived").id)
    assert kinds(run_verify("--sample", "1"))["event_missing"] == 1


def test_part_is_aligned_to_checkpoints(ids: list[uuid.UUID]) -> None:
    assert [align_part(part, KEYS) for part in ((0, 1), (5, 6), (100, 305), (306, 312), (4, 6))] == [
        (0, 5),
        (5, 305),
        (5, 305),
        (305, 312),
        (0, 305),
    ]


def batches(count: int) -> list[uuid.UUID]:
    """Return the ids of as many sealed batches of 20 events."""
    return [id_ for number in range(count) for id_ in sealed(20, at=NOW + timedelta(minutes=number))]


@contextmanager
def random_start_at(*leaf_indexes: int) -> Iterator[None]:
    """Draw these leaves, one after the other; the ids of events stay random."""
    drawn = iter(leaf_indexes)
    with randomness.override_randomness(lambda size: next(drawn).to_bytes(16, "big") if size == 16 else urandom(size)):
        yield


def run_schedule(*, start: datetime, days: float, pause: timedelta = timedelta(hours=6)) -> list[int]:
    """Run the task for so long, and return the number of faults of each run."""
    faults, now = [], start
    while now <= start + days * DAY:
        # The random part would be the whole of this small log: here it begins with the last leaf.
        with random_start_at(199, 199):
            faults.append(verify_next_part(KEY, now=now).fault_count)
        seal_now(at=now)
        now += pause
    return faults


def schedule_state() -> dict[str, Any]:
    content = read_record("schedule", KEYS)
    assert content is not None
    return content


def test_schedule_verifies_a_fourteenth_a_day_and_all_in_two_weeks() -> None:
    ids = batches(10)
    alter(ids[150])
    start = NOW + DAY
    with random_start_at(45, 199):
        assert verify_next_part(KEY, now=start).fault_count == 0
    assert (schedule_state()["first"], schedule_state()["position"]) == (40, 60)
    for day in range(1, 14):
        with random_start_at(199):
            verify_next_part(KEY, now=start + day * DAY)
        state, size = schedule_state(), AuditCheckpoint.objects.last().tree_size
        verified = state["position"] - 40 + size * state["is_wrapped"]
        # To the next checkpoint, each of which covers 20 events.
        assert size / 14 * day <= verified <= size / 14 * day + 20 + size / 14
        seal_now(at=start + day * DAY)
    assert schedule_state()["is_finished"]
    recorded = AuditEvent.objects.filter(action="audit.verified")
    outcomes = [(event.outcome, json.loads(event.detail)) for event in recorded]
    # The run with the altered event, and the end of the cycle.
    assert [(outcome, detail["kinds"]) for outcome, detail in outcomes] == [("failure", ["event_altered"])] * 2
    assert outcomes[1][1]["events"] >= outcomes[1][1]["tree_size"] == size


def test_schedule_of_an_intact_log_records_one_event_each_cycle() -> None:
    batches(10)
    assert set(run_schedule(start=NOW + DAY, days=13.7)) == {0}
    (event,) = AuditEvent.objects.filter(action="audit.verified")
    assert (event.outcome, json.loads(event.detail)["findings"]) == ("success", 0)
    run_schedule(start=NOW + 15 * DAY, days=1)
    assert schedule_state()["started_at"] == (NOW + 15 * DAY).isoformat()


def test_schedule_goes_on_after_a_pause_and_reads_late_events_once() -> None:
    ids = batches(5)
    with random_start_at(0, 0):
        verify_next_part(KEY, now=NOW + DAY)
    # Late events have old ids, and are sealed last.
    late = sealed(3, at=NOW - DAY)
    forged = [events(1, at=moment)[0] for moment in (NOW - 2 * DAY, NOW + timedelta(minutes=2, seconds=30))]
    with without_triggers():
        for id_ in forged:
            sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", id_)
            sql(f"DELETE FROM {QUEUE} WHERE event_id = %s", id_)
    with random_start_at(102):
        summary = verify_next_part(KEY, now=NOW + 40 * DAY)
    assert (schedule_state()["is_finished"], schedule_state()["events"] >= len({*ids, *late})) == (True, True)
    # The older one was inserted where this cycle began.
    assert summary.counts_by_kind == {"event_forged": 1}
    seal_now(at=NOW + 40 * DAY)
    with random_start_at(0, 0):
        verify_next_part(KEY, now=NOW + 41 * DAY)
    with random_start_at(102):
        assert verify_next_part(KEY, now=NOW + 41 * DAY + CYCLE).counts_by_kind["event_forged"] == 1
    outcomes = [json.loads(event.detail) for event in AuditEvent.objects.filter(action="audit.verified")]
    assert [detail["kinds"] for detail in outcomes[:2]] == [["event_forged"]] * 2
    assert {"event_forged"} <= set(outcomes[-1]["kinds"])
    assert outcomes[-1]["findings"] >= 2


def test_record_of_the_schedule_that_is_removed_begins_again_at_a_random_place() -> None:
    batches(10)
    with random_start_at(45, 0):
        verify_next_part(KEY, now=NOW + DAY)
    VerificationRecord.objects.all().delete()
    with random_start_at(190, 0):
        verify_next_part(KEY, now=NOW + DAY)
    assert schedule_state()["first"] == 180
    write_record("schedule", schedule_state() | {"position": 10**6}, OTHER_KEY)
    with random_start_at(101, 0):
        verify_next_part(KEY, now=NOW + DAY)
    assert schedule_state()["first"] == 100


def test_each_run_verifies_a_random_part_although_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification_schedule, "LEAVES_PER_PART", 20)
    ids = batches(10)
    with random_start_at(0, 0):
        verify_next_part(KEY, now=NOW + DAY)
    alter(ids[130])
    for start, expected in ((60, 0), (120, 1)):
        with random_start_at(start):
            assert verify_next_part(KEY, now=NOW + DAY).fault_count == expected


def test_task_needs_the_signing_key() -> None:
    batches(1)
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": None})):
        verify()
        assert not VerificationRecord.objects.exists()
    verify()
    assert schedule_state()["is_finished"] is True


def test_empty_log_has_nothing_to_verify() -> None:
    verify()
    assert not VerificationRecord.objects.exists()


def test_events_that_wait_for_the_first_seal_are_no_fault_of_the_schedule() -> None:
    (id_, _) = events(2)
    summary = verify_next_part(KEY, now=NOW + DAY)
    assert (summary.fault_count, summary.waiting) == (0, 2)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", id_)
    assert verify_next_part(KEY, now=NOW + DAY).counts_by_kind == {"event_forged": 1}
    sealed(1, at=NOW + DAY)
    # After it, they are overdue.
    events(1, at=NOW + DAY)
    assert "event_unsealed" in verify_next_part(KEY, now=NOW + 2 * DAY).counts_by_kind


def cut(ids: list[uuid.UUID], size: int) -> None:
    """Restore the audit database as it was when the log had that size."""
    sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > {size}")
    sql(f"DELETE FROM {LEAF} WHERE leaf_index >= {size}")
    sql(f"DELETE FROM {NODE} WHERE (node_index + 1) * 256 > {size} AND level = 8")
    sql(f"DELETE FROM {QUEUE}")
    for id_ in ids[size:]:
        sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)


def test_rewritten_log_of_the_same_size_is_found_although_its_nodes_are_those_of_the_record(
    run_verify: Callable[..., Any],
) -> None:
    ids = [*sealed(300), *sealed(212, at=NOW + timedelta(minutes=1))]
    run_verify()
    (node,) = AuditNode.objects.filter(level=8, node_index=1).values_list("node_hash", flat=True)
    with without_triggers():
        cut(ids, 300)
    sealed(212, at=NOW + timedelta(minutes=2))
    assert set(kinds(run_verify("--full"))) == {"fork_undeclared"}
    with without_triggers():
        # A log of 512 leaves is read from its two nodes alone.
        sql(f"UPDATE {NODE} SET node_hash = %s WHERE level = 8 AND node_index = 1", bytes(node))
    assert "fork_undeclared" in kinds(run_verify())


def test_log_that_was_cut_is_truncated_although_the_nodes_of_the_record_are_kept(
    run_verify: Callable[..., Any],
) -> None:
    ids = [*sealed(300), *sealed(212, at=NOW + timedelta(minutes=1))]
    run_verify()
    nodes = AuditNode.objects.filter(level=8, node_index=1).values_list("node_hash", flat=True)[0]
    with without_triggers():
        cut(ids, 300)
        sql(f"INSERT INTO {NODE} (level, node_index, node_hash) VALUES (8, 1, %s)", bytes(nodes))
    assert "log_truncated" in kinds(run_verify())


def test_result_is_printed_although_the_signer_of_the_record_fails(
    ids: list[uuid.UUID], run_verify: Callable[..., Any]
) -> None:
    class Signer:
        def public_key(self) -> Any:
            return KEY.public_key()

        def sign(self, data: bytes) -> bytes:
            raise OSError

    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": Signer})):
        (totals,) = run_verify()
    assert (totals["events"], totals["faults"]) == (312, 0)
    assert not VerificationRecord.objects.exists()
