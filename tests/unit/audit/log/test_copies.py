"""A copy of the log that a sink or an archive holds is verified without the database, by its signed checkpoints."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_phi_oidc._internal.overrides import override_global
from django_phi_oidc.audit.errors import ProofInvalid
from django_phi_oidc.audit.formats import item_to_line
from django_phi_oidc.audit.log import copies
from django_phi_oidc.audit.log.archive import write_archive
from django_phi_oidc.audit.log.copies import read_copy_lines, render_summary, verify_copy
from django_phi_oidc.audit.log.cursor import DeliveryPosition, read_items
from django_phi_oidc.audit.log.findings import LogFinding, VerificationSummary
from django_phi_oidc.audit.log.recovery import resume_log
from django_phi_oidc.audit.log.sequencer import BATCH_SIZE
from django_phi_oidc.audit.merkle.checkpoint import (
    Checkpoint,
    encode_verifier_key,
    parse_checkpoint,
)
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, sealed
from tests.support.audit_tampering import CHECKPOINT, EVENT, LEAF, QUEUE, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
LATER = NOW + timedelta(hours=1)
BATCHES = (5, 4, 3)
Lines = list[bytes]


def deliver(position: DeliveryPosition = DeliveryPosition()) -> Lines:  # noqa: B008 -- frozen
    """Return the lines that a sink gets from there on."""
    items = read_items(position, limit=10_000).items
    return [f"{item_to_line(item, 'json', hostname='portal')}\n".encode() for item in items]


@pytest.fixture
def lines() -> Lines:
    """Return the lines of 12 events and 3 checkpoints."""
    for number, count in enumerate(BATCHES):
        sealed(count, at=NOW + timedelta(minutes=number))
    return deliver()


def find(lines: Sequence[bytes], **options: Any) -> list[LogFinding]:
    keys = options.pop("keys", [KEY.public_key()])
    return list(verify_copy(lines, keys=keys, summary=VerificationSummary(), **options))


def kinds(lines: Sequence[bytes], **options: Any) -> list[tuple[str, int | None]]:
    """Return the kind of each finding with its leaf index or tree size."""
    found = find(lines, **options)
    return [
        (finding.kind.value, finding.leaf_index if finding.tree_size is None else finding.tree_size)
        for finding in found
    ]


def newest() -> Checkpoint:
    return parse_checkpoint(AuditCheckpoint.objects.last().note)


def test_e5_copy_as_delivered_has_no_findings(lines: Lines) -> None:
    summary = VerificationSummary()
    found = list(verify_copy(lines, keys=[KEY.public_key()], summary=summary, witnessed_checkpoints=[newest()]))
    assert found == []
    assert (summary.events, summary.checkpoints, summary.waiting, summary.tree_size) == (12, 3, 0, 12)
    assert kinds(lines[:-1]) == []


def edited(number: int, old: str, new: str) -> Callable[[Lines], Lines]:
    def edit(lines: Lines) -> Lines:
        changed = lines[number].replace(old.encode(), new.encode(), 1)
        assert changed != lines[number]
        return [*lines[:number], changed, *lines[number + 1 :]]

    return edit


DAMAGE: dict[str, tuple[Callable[[Lines], Lines], list[tuple[str, int | None]]]] = {
    "a changed field": (edited(2, '"actor":"7"', '"actor":"8"'), [("event_altered", 5)]),
    "an added member": (edited(2, '"actor":"7"', '"actor":"7","more":1'), [("event_altered", 5)]),
    "a changed event of the last checkpoint": (edited(12, '"actor":"7"', '"actor":"8"'), [("event_altered", 12)]),
    "a missing event": (lambda lines: lines[:2] + lines[3:], [("event_missing", 2)]),
    "the first event missing": (lambda lines: lines[1:], [("event_missing", 0)]),
    "the last event of a checkpoint missing": (lambda lines: lines[:4] + lines[5:], [("event_missing", 4)]),
    "two events swapped": (
        lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
        [("event_missing", 2), ("event_altered", 2)],
    ),
    "another event in place of one": (
        lambda lines: [*lines[:2], lines[1].replace(b'"leaf_index":1', b'"leaf_index":2'), *lines[3:]],
        [("event_altered", 5)],
    ),
    "an event again with another content": (
        lambda lines: [*lines[:3], lines[2].replace(b'"actor":"7"', b'"actor":"8"'), *lines[3:]],
        [("event_altered", 2)],
    ),
    "a checkpoint of another size": (edited(5, "\\n5\\n", "\\n4\\n"), [("tree_altered", 5)]),
    "the second history of a checkpoint": (
        lambda lines: [*lines[:11], lines[6].replace(b'"actor":"7"', b'"actor":"8"'), *lines[11:]],
        [("event_missing", 6)],
    ),
    "a member twice": (
        edited(2, '"actor":"7"', '"actor":"8","actor":"7"'),
        [("line_unreadable", None), ("event_missing", 2)],
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGE.values(), ids=DAMAGE)
def test_e5_damaged_copy_is_found(lines: Lines, damage: Callable[[Lines], Lines], expected: Any) -> None:
    assert kinds(damage(lines)) == expected


def test_e5_items_that_were_delivered_twice_or_cut_by_a_crash_are_no_fault(lines: Lines) -> None:
    assert kinds([*lines[:4], *lines[2:]]) == []
    assert kinds([*lines[:8], *lines[3:]]) == []
    assert kinds([*lines, *lines]) == []
    (cut,) = find([*lines[:4], lines[4][:40] + b"\n", *lines[3:]])
    assert (cut.kind.value, cut.is_fault) == ("line_unreadable", False)


def test_e5_cut_copy_is_found_by_a_checkpoint_that_was_kept_elsewhere(lines: Lines) -> None:
    outside = newest()
    assert kinds(lines[:9], witnessed_checkpoints=[outside]) == [("log_truncated", 12)]
    assert kinds(lines[:-1], witnessed_checkpoints=[outside]) == []
    other = Checkpoint(origin=outside.origin, tree_size=12, root_hash=bytes(32))
    assert kinds(lines, witnessed_checkpoints=[other]) == [("fork_undeclared", 12)]


def test_e5_copy_under_another_key_is_not_accepted(lines: Lines) -> None:
    assert [kind for kind, _ in kinds(lines, keys=[OTHER_KEY.public_key()])] == ["tree_altered"] * 3


@pytest.mark.parametrize("line", [b"", b"CEF:0|x\n", b"[]\n", b"{}\n", b"[" * 10_000])
def test_e5_file_that_is_no_copy_is_refused(line: bytes) -> None:
    with pytest.raises(ProofInvalid):
        find([line] if line else [])


def restore_to(size: int) -> None:
    """Restore the database to its state with that many sealed events."""
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id IN (SELECT event_id FROM {LEAF} WHERE leaf_index >= %s)", size)
        sql(f"DELETE FROM {LEAF} WHERE leaf_index >= %s", size)
        sql(f"DELETE FROM {CHECKPOINT} WHERE tree_size > %s", size)
        sql(f"DELETE FROM {QUEUE}")


def position_after(size: int) -> DeliveryPosition:
    leaf_hash = bytes(AuditLeaf.objects.get(leaf_index=size - 1).leaf_hash)
    return DeliveryPosition(tree_size=size, checkpoint_size=size, leaf_hash=leaf_hash)


def test_e5_restore_that_the_log_declares_is_a_fault_unless_it_is_named(lines: Lines) -> None:
    note, outside = AuditCheckpoint.objects.last().note, newest()
    restore_to(5)
    resume_log(witnessed_note=note, reason="the disk broke", key=KEY, now=LATER)
    sealed(9, at=LATER)
    copy = [*lines, *deliver(position_after(5))]
    (finding,) = find(copy, witnessed_checkpoints=[outside])
    assert (finding.kind.value, finding.tree_size, finding.is_fault) == ("fork_declared", 12, True)
    (finding,) = find(copy, known_lost_sizes=[12])
    assert not finding.is_fault
    # A copy that was begun after the restore does not contain the lost events.
    (finding,) = find(deliver(), witnessed_checkpoints=[outside], known_lost_sizes=[12])
    assert (finding.kind.value, finding.tree_size, finding.is_fault) == ("fork_declared", 12, False)


def test_e5_history_that_was_rewritten_is_a_fork(lines: Lines) -> None:
    restore_to(5)
    sealed(9, at=LATER)
    assert kinds([*lines, *deliver(position_after(5))], known_lost_sizes=[12]) == [("fork_undeclared", 12)]
    assert kinds(deliver()) == []


def test_e5_archives_are_verified_one_after_the_other(lines: Lines, tmp_path: Path) -> None:
    files = [tmp_path / "first.jsonl.gz", tmp_path / "second.jsonl"]
    for file, first, size in ((files[0], 0, 5), (files[1], 5, 12)):
        write_archive(file, first_leaf_index=first, tree_size=size, progress=lambda done, total: None)
    summary = VerificationSummary()
    assert list(verify_copy(read_copy_lines(files), keys=[KEY.public_key()], summary=summary)) == []
    assert (summary.events, summary.checkpoints) == (12, 2)
    assert kinds(list(read_copy_lines(files[1:]))) == []
    second = files[1].read_bytes().splitlines(keepends=True)
    assert kinds([*second[:3], *second[4:]]) == [("event_missing", 11)]
    assert kinds([*second[:-1]]) == [("event_missing", 11)]
    files[0].write_bytes(files[0].read_bytes()[:-20])
    with pytest.raises(ProofInvalid, match="damaged"):
        find(list(read_copy_lines(files)))


def altered(lines: Lines) -> Lines:
    """Change the actor of each event."""
    return [line.replace(b'"actor":"7"', b'"actor":"8"') for line in lines]


def without_checkpoints(lines: Lines) -> Lines:
    return [line for line in lines if b'"checkpoint"' not in line]


def doubled(lines: Lines) -> Lines:
    return [line for line in lines for _ in range(2)]


NOTHING = "nothing is proven: no valid checkpoint"
UNPROVEN_COPIES: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "altered events without checkpoints": (lambda lines: altered(without_checkpoints(lines)), NOTHING),
    "genuine events without checkpoints": (without_checkpoints, NOTHING),
    "checkpoints that are no items any more": (
        lambda lines: [b"x\n" if b'"checkpoint"' in line else line for line in altered(lines)],
        NOTHING,
    ),
    "altered events in the place of all signed ones": (lambda lines: [*lines[:6], *altered(lines[:5])], NOTHING),
    "altered events in the place of some signed ones": (
        lambda lines: [*lines[:11], *altered(lines[6:9])],
        "the last 3 events are not proven: no valid checkpoint",
    ),
}


@pytest.mark.parametrize(("damage", "text"), UNPROVEN_COPIES.values(), ids=UNPROVEN_COPIES)
def test_q5_copy_without_a_valid_checkpoint_proves_nothing(
    lines: Lines, damage: Callable[[Lines], Lines], text: str
) -> None:
    summary = VerificationSummary()
    with override_global(vars(copies), "_KEPT_LEAVES", 0):
        found = list(verify_copy(damage(lines), keys=[KEY.public_key()], summary=summary))
    assert [finding for finding in found if finding.is_fault] == []
    assert summary.unproven == text
    assert render_summary(summary).endswith(f"; {text}.")
    genuine = VerificationSummary()
    assert list(verify_copy(lines, keys=[KEY.public_key()], summary=genuine)) == []
    assert genuine.unproven == ""


UNPROVEN_ARCHIVES: dict[str, Callable[[Lines], Lines]] = {
    "the first line replaced": lambda lines: altered([b"x\n", *lines[1:]]),
    "the first line removed": lambda lines: altered(lines[1:]),
    "the first line replaced, and the others doubled": lambda lines: [b"x\n", *doubled(lines[1:])],
    "a first line without members": lambda lines: [b'{"format":"phi-oidc-archive/1"}\n', *altered(lines[1:])],
    "only a first line without members": lambda lines: [b'{"format":"phi-oidc-archive/1"}\n'],
}


@pytest.mark.parametrize("damage", UNPROVEN_ARCHIVES.values(), ids=UNPROVEN_ARCHIVES)
def test_q5_archive_without_its_first_line_proves_nothing(
    lines: Lines, damage: Callable[[Lines], Lines], tmp_path: Path
) -> None:
    file = tmp_path / "archive.jsonl"
    write_archive(file, first_leaf_index=0, tree_size=12, progress=lambda done, total: None)
    archive = file.read_bytes().splitlines(keepends=True)
    summary = VerificationSummary()
    found = list(verify_copy(damage(archive), keys=[KEY.public_key()], summary=summary))
    assert [finding for finding in found if finding.is_fault] == []
    assert summary.unproven == NOTHING
    # An archive ends with a checkpoint, also after the lines of a sink.
    mixed = VerificationSummary()
    tail = [*archive[1:6], *altered(archive[6:])]
    assert list(verify_copy([*lines[:6], *tail], keys=[KEY.public_key()], summary=mixed)) == []
    assert mixed.unproven == "the last 7 events are not proven: no valid checkpoint"
    whole = VerificationSummary()
    assert list(verify_copy([*lines[:6], *archive], keys=[KEY.public_key()], summary=whole)) == []
    assert (whole.unproven, whole.checkpoints) == ("", 2)


def test_q5_events_beyond_one_batch_after_the_last_checkpoint_are_not_proven(lines: Lines) -> None:
    assert copies.MAX_UNSIGNED_EVENTS == BATCH_SIZE
    tail = altered(without_checkpoints(lines)[5:])
    for limit, text in ((7, ""), (6, "the last 7 events are not proven: no valid checkpoint")):
        summary = VerificationSummary()
        with override_global(vars(copies), "MAX_UNSIGNED_EVENTS", limit):
            assert list(verify_copy([*lines[:6], *tail], keys=[KEY.public_key()], summary=summary)) == []
        assert (summary.waiting, summary.unproven) == (7, text)


@pytest.fixture
def _with_key() -> Iterator[None]:
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})):
        yield


@pytest.mark.usefixtures("_with_key")
def test_e5_verify_command_reads_a_copy_and_not_the_database(
    lines: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str], audit_database_away: Any
) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b"".join(lines))
    with audit_database_away():
        call_command("phi_oidc", "audit", "verify", "--copy", str(file))
        assert capsys.readouterr().out == "12 events, 3 checkpoints, 0 events after the last one; no faults.\n"
        with pytest.raises(CommandError, match="reads archives"):
            call_command("phi_oidc", "audit", "verify", "--copy", str(file), "--archive", str(file))
        file.write_bytes(b"".join(lines[1:]))
        with pytest.raises(CommandError, match="not what was sealed"):
            call_command("phi_oidc", "audit", "verify", "--copy", str(file), "--json")
    row, totals = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["kind"], row["leaf_index"], totals["faults"]) == ("event_missing", 0, 1)
    assert not AuditEvent.objects.filter(action="audit.verified").exists()


@pytest.mark.usefixtures("_with_key")
def test_q5_commands_end_with_status_2_if_nothing_is_proven(
    lines: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    key = encode_verifier_key("phi-oidc-audit", KEY.public_key())
    for content, status in ((lines, 0), (lines[1:], 1), (altered(without_checkpoints(lines)), 2)):
        file.write_bytes(b"".join(content))
        assert copies.main([str(file), "--public-key", key]) == status
    assert capsys.readouterr().out.endswith(f"12 events, 0 checkpoints, 12 events after the last one; {NOTHING}.\n")
    with pytest.raises(CommandError, match=NOTHING) as raised:
        call_command("phi_oidc", "audit", "verify", "--copy", str(file))
    assert raised.value.returncode == 2


def test_e5_copy_is_verified_in_a_process_without_django(lines: Lines, tmp_path: Path) -> None:
    file, checkpoint = tmp_path / "audit.jsonl", tmp_path / "checkpoint.txt"
    checkpoint.write_text(AuditCheckpoint.objects.last().note)
    key = encode_verifier_key("phi-oidc-audit", KEY.public_key())
    script = "import sys; sys.modules['django'] = None; from django_phi_oidc.audit.log.copies import main"
    for content, status in ((lines, 0), (lines[:9], 1), ([b"x\n"], 1)):
        file.write_bytes(b"".join(content))
        arguments = [str(file), "--public-key", key, "--checkpoint", str(checkpoint)]
        done = subprocess.run(
            [sys.executable, "-c", f"{script}; sys.exit(main())", *arguments],
            env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[4])},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
    assert "No line is an item" in done.stderr
