"""Operates the audit trail: seals it, verifies it, proves it, keeps it."""

import json
import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management.base import CommandError, OutputWrapper
from django.db import DatabaseError

from ... import conf
from ..._internal import clock
from ...audit import db_privileges, outbox, spool, throttling
from ...audit.events import Action, Origin, serialize_event
from ...audit.log import (
    archive as archiving,
)
from ...audit.log import (
    bundle,
    proofs,
    recovery,
    sequencer,
)
from ...audit.log import (
    keys as signing,
)
from ...audit.log.findings import LogFinding, VerificationSummary
from ...audit.log.verifier import UNSEALED_AFTER, verify_log
from ...audit.models import AuditCheckpoint, AuditEvent, AuditOutbox
from ...audit.recorder import record
from ...audit.search import EventFilters, iterate_events
from ...audit.storage import has_valid_row_mac, parse_event_row
from ...errors import AuditUnavailable, CheckpointInvalid, PhiOidcError
from ...merkle.checkpoint import Checkpoint, encode_verifier_key, verify_checkpoint

_EARLIEST_TIME = datetime(1970, 1, 2, tzinfo=UTC)
_MAX_SECONDS_DIGITS = 9
_FILTER_OPTIONS = ("action", "outcome", "actor", "subject", "since", "until")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `phi_oidc audit`."""
    commands = parser.add_subparsers(dest="audit_command", required=True)
    commands.add_parser("drain", help="move to the trail what waits in the outbox")
    seal = commands.add_parser("seal", help="seal what is new, until nothing is")
    seal.add_argument("--again", action="store_true", help="also what was refused before, as for want of a MAC key")
    verifying = commands.add_parser("verify", help="recompute the whole log, name each fault; status 1 if any")
    verifying.add_argument("--checkpoint", action="append", type=Path, default=[], metavar="FILE", help="kept outside")
    verifying.add_argument("--archive", action="append", type=Path, default=[], metavar="FILE", help="of events")
    verifying.add_argument("--unsealed-after", type=_parse_seconds, default=UNSEALED_AFTER, metavar="SECONDS")
    verifying.add_argument("--json", action="store_true", help="an object for each finding, then one for the whole")
    prove = commands.add_parser("prove", help="print the proof that an event is in the log")
    prove.add_argument("event_id", type=uuid.UUID, metavar="EVENT_ID")
    check = commands.add_parser(
        "check-proof", help="check a proof; python -m django_phi_oidc.audit.log.bundle is the same"
    )
    check.add_argument("file", type=Path)
    check.add_argument("--public-key", action="append", required=True, metavar="KEY")
    consistency = commands.add_parser("consistency", help="print the proof that one checkpoint continues another")
    consistency.add_argument("old", type=Path)
    consistency.add_argument("new", type=Path)
    checkpoint = commands.add_parser("checkpoint", help="print the newest checkpoint, to be kept outside")
    checkpoint.add_argument("--public-key", action="store_true", help="print the verifier key instead")
    export = commands.add_parser("export", help="print events, a line of JSON each")
    for name in _FILTER_OPTIONS:
        export.add_argument(f"--{name}", type=_parse_time if name in ("since", "until") else str)
    archive = commands.add_parser("archive", help="write sealed events into a file that verify accepts")
    archive.add_argument("file", type=Path, help="a new one; compressed when its name ends with .gz")
    archive.add_argument("--first", type=int, metavar="N", help="default: where the last archive ended")
    archive.add_argument("--before", type=_parse_time, metavar="TIME", help="only what was sealed before")
    resume = commands.add_parser("resume", help="go on with a log that was restored from a backup")
    resume.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the largest one kept outside")
    resume.add_argument("--reason", required=True, help="for the trail: why it was restored")
    grants = commands.add_parser("grants", help="print the SQL for a PostgreSQL role that can change nothing")
    grants.add_argument("role")
    grants.add_argument("--sealer", action="store_true", help="for what holds the signing key")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the subcommand says. Raises: CommandError when it can't, or finds a fault."""
    handlers: dict[str, Callable[[Mapping[str, Any], OutputWrapper, OutputWrapper], None]] = {
        "drain": _drain,
        "seal": _seal,
        "verify": _verify,
        "prove": _prove,
        "check-proof": _check_proof,
        "consistency": _consistency,
        "checkpoint": _checkpoint,
        "export": _export,
        "archive": _archive,
        "resume": _resume,
        "grants": _grants,
    }
    try:
        handlers[options["audit_command"]](options, stdout, stderr)
    except DatabaseError as error:
        raise CommandError(f"The database says: {error}") from error
    except (PhiOidcError, LookupError, OSError, UnicodeDecodeError) as error:
        raise CommandError(str(error) or type(error).__name__) from error


def _drain(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    moved = 0
    try:
        throttling.flush_refusal_counts(now=clock.now())
    finally:
        try:
            while step := outbox.flush():
                moved += step
        except AuditUnavailable as error:
            raise CommandError(f"{error} Moved: {moved}; the others wait in the outbox.") from error
    if left := AuditOutbox.objects.count():
        raise CommandError(f"Moved: {moved}; left in the outbox: {left}, the log says why.")
    if (declared := conf.emergency()) and declared.spool:
        try:
            moved += spool.flush_spool(declared.spool, now=clock.now())
        except OSError as error:
            raise CommandError(f"The spool can't be read: {type(error).__name__}. Moved: {moved}.") from error
    stdout.write(f"Moved: {moved}.\n")


def _seal(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    progress, events, refused = ProgressLine(stderr, "sealed"), 0, 0
    for done in sequencer.append_all_to_log(key=_get_signing_key(), clock=clock.now, retry_refused=options["again"]):
        events, refused = events + done.event_count, refused + done.refused_count
        progress(events, 0)
    progress.end()
    stdout.write(f"Sealed: {events}; refused: {refused}.")
    if refused:
        raise CommandError("Events were refused: their MAC does not fit, or its key is missing. See `audit verify`.")


def _verify(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    keys = signing.get_public_keys()
    outside = [_read_witnessed_checkpoint(path) for path in options["checkpoint"]]
    archives = [archiving.verify_archive(path, keys) for path in options["archive"]]
    restored = [told for archive in archives for told in archive.restore_events]
    tally, progress = VerificationSummary(), ProgressLine(stderr, "verified")
    with archiving.open_archives(archives) if archives else nullcontext(lambda index: None) as archived:
        for finding in verify_log(
            keys=keys,
            now=clock.now(),
            summary=tally,
            witnessed_checkpoints=outside,
            find_archived=archived,
            archived_restore_events=restored,
            unsealed_after=options["unsealed_after"],
            progress=progress,
        ):
            progress.end()
            stdout.write(json.dumps(_finding_as_dict(finding)) if options["json"] else finding.render_line())
    progress.end()
    record(
        Action.AUDIT_VERIFIED,
        origin=Origin(),
        now=clock.now(),
        outcome="failure" if tally.fault_count else "success",
        detail=tally.build_event_detail(),
    )
    if options["json"]:
        counts = {kind.value: count for kind, count in sorted(tally.counts_by_kind.items())}
        whole = {name: getattr(tally, name) for name in ("tree_size", "events", "checkpoints", "waiting", "archived")}
        stdout.write(json.dumps({**whole, "faults": tally.fault_count, "found": counts}))
    else:
        stdout.write(
            f"{tally.events} sealed events ({tally.archived} of them from archives), {tally.checkpoints} checkpoints, "
            f"{tally.waiting} events wait to be sealed; {tally.fault_count or 'no'} faults."
        )
    if tally.fault_count:
        raise CommandError("The trail is not as it was sealed.")


def _prove(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    proof = proofs.create_inclusion_proof(options["event_id"])
    record(
        Action.AUDIT_EXPORTED,
        origin=Origin(),
        now=clock.now(),
        resource=f"AuditEvent/{options['event_id']}",
        detail={"format": "proof"},
    )
    stdout.write(proof)


def _check_proof(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    stdout.write(bundle.verify_proof_file(options["file"], public_keys=options["public_key"]))


def _consistency(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    stdout.write(proofs.create_consistency_proof(_read_text(options["old"]), _read_text(options["new"])))


def _checkpoint(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    newest = AuditCheckpoint.objects.last()
    if options["public_key"]:
        name = signing.get_checkpoint_origin(newest.epoch if newest else 1)
        for key in signing.get_public_keys():
            stdout.write(encode_verifier_key(name, key))
    elif newest is None:
        raise CommandError("Nothing was sealed yet.")
    else:
        stdout.write(newest.note)


def _export(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    filters = EventFilters(**{name: options[name] or getattr(EventFilters(), name) for name in _FILTER_OPTIONS})
    record(
        Action.AUDIT_EXPORTED,
        origin=Origin(),
        now=clock.now(),
        subject=filters.subject,
        detail={"format": "json", "filters": list(filters.list_used_names())},
    )
    for row in iterate_events(filters):
        stdout.write(serialize_event(parse_event_row(row)))


def _archive(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    closed = AuditCheckpoint.objects.order_by("-tree_size")
    if options["before"]:
        closed = closed.filter(sealed_at__lt=options["before"])
    last = closed.first()
    if last is None:
        raise CommandError("No checkpoint was signed before that time.")
    first = _get_first_unarchived_leaf() if options["first"] is None else options["first"]
    progress = ProgressLine(stderr, "archived")
    digest = archiving.write_archive(
        options["file"], first_leaf_index=first, tree_size=last.tree_size, progress=progress
    )
    progress.end()
    detail = {"first": first, "tree_size": last.tree_size, "sha256": digest}
    record(Action.AUDIT_ARCHIVED, origin=Origin(), now=clock.now(), detail=detail)
    stdout.write(f"{options['file']}: the leaves {first} to {last.tree_size - 1}, SHA-256 {digest}.")


def _get_first_unarchived_leaf() -> int:
    """Return where the last archive ended. Nobody without the MAC key has a say in it."""
    told = AuditEvent.objects.filter(action=Action.AUDIT_ARCHIVED).order_by("-id")
    last = next((event for event in told.iterator(chunk_size=100) if has_valid_row_mac(event)), None)
    return int(json.loads(last.detail)["tree_size"]) if last else 0


def _resume(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    note = recovery.resume_log(
        witnessed_note=_read_text(options["checkpoint"]),
        reason=options["reason"],
        key=_get_signing_key(),
        now=clock.now(),
    )
    stdout.write(note)


def _grants(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    try:
        for statement in db_privileges.grant_statements(options["role"], is_sealer=options["sealer"]):
            stdout.write(statement)
    except ValueError as error:
        raise CommandError(str(error)) from error


class ProgressLine:
    """A line that is written over, where somebody sees it."""

    def __init__(self, stderr: OutputWrapper, label: str) -> None:
        self._stderr = stderr if stderr.isatty() else None
        self._label = label
        self._is_open = False

    def __call__(self, done: int, total: int) -> None:
        if self._stderr is None:
            return
        share = done / total if total else 0
        bar = f"[{'#' * round(share * 30):.<30}] {share:4.0%} " if total else ""
        self._stderr.write(f"\r{bar}{done:,} {self._label}", ending="")
        self._stderr.flush()
        self._is_open = True

    def end(self) -> None:
        if self._is_open and self._stderr is not None:
            self._stderr.write("")
            self._is_open = False


def _get_signing_key() -> Ed25519PrivateKey:
    key = signing.find_signing_key()
    if key is None:
        raise CommandError("PHI_OIDC['KEYS']['audit_signing'] is not configured here: nothing can be signed.")
    return key


def _read_witnessed_checkpoint(path: Path) -> Checkpoint:
    try:
        return verify_checkpoint(_read_text(path), signing.get_public_keys())
    except CheckpointInvalid as error:
        raise CommandError(f"{path}: {error}") from error


def _read_text(path: Path) -> str:
    return path.read_text("utf-8")


def _finding_as_dict(finding: LogFinding) -> dict[str, Any]:
    told = {name: getattr(finding, name) for name in ("event_id", "leaf_index", "tree_size", "text")}
    return {"kind": finding.kind.value, "fault": finding.is_fault, **told}


def _parse_time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError("a time is written as in 2026-11-24 or 2026-11-24T16:05:00+01:00") from error
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found < _EARLIEST_TIME:
        raise ArgumentTypeError("a time before 1970 is none of the trail's")
    return found


def _parse_seconds(text: str) -> timedelta:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_SECONDS_DIGITS:
        raise ArgumentTypeError("a whole number of seconds is expected")
    return timedelta(seconds=int(text))
