"""Operates the audit log: seals, verifies, proves, exports and archives it."""

import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from ... import conf
from ..._internal import clock
from ...audit import db_privileges, outbox, spool, throttling, triggers
from ...audit.events import Action, parse_detail, serialize_event
from ...audit.log import archive as archives
from ...audit.log import bundle, copies, proofs, recovery, sequencer, signing_keys
from ...audit.log.findings import FindingKind, LogFinding, VerificationSummary
from ...audit.log.verifier import UNSEALED_AFTER, verify_log
from ...audit.models import AuditCheckpoint, AuditEvent, AuditOutbox
from ...audit.recorder import record
from ...audit.request_context import current_origin
from ...audit.search import EventFilters, iterate_events
from ...audit.storage import has_valid_row_mac, parse_event_row
from ...errors import AuditUnavailable, CheckpointInvalid
from ...merkle.checkpoint import Checkpoint, LogKey, RetiredKey, encode_verifier_key, verify_checkpoint
from ._arguments import Handler, Options, add_command, parse_number, parse_time
from ._output import Output, ProgressLine

_EARLIEST_TIME = datetime(1970, 1, 2, tzinfo=UTC)
_SUMMARY = (
    "{events} sealed events ({archived} of them from archives), {checkpoints} checkpoints, {waiting} events wait to be "
    "sealed; {total} faults."
)
_FILTER_OPTIONS = ("action", "outcome", "actor", "subject", "since", "until")


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="audit_command", required=True)

    def add(name: str, handler: Handler, help_text: str) -> ArgumentParser:
        return add_command(commands, name, partial(_run, handler), help_text)

    add("drain", _drain, "move the events in the outbox to the audit log")
    seal = add("seal", _seal, "seal the new events, until none is left")
    seal.add_argument("--again", action="store_true", help="also retry refused events, such as after a missing MAC key")
    verify = add("verify", _verify, "recompute the whole log and report each fault; status 1 if there is one")
    for option, text in (("--checkpoint", "a checkpoint kept elsewhere"), ("--archive", "an archive of events")):
        verify.add_argument(option, action="append", type=Path, default=[], metavar="FILE", help=text)
    text = "verify these files instead of the database: JSON lines of a sink, or archives, in their order"
    verify.add_argument("--copy", action="append", type=Path, default=[], metavar="FILE", help=text)
    text = "the size that a restore lost, which is then no fault"
    verify.add_argument("--lost-size", action="append", type=int, default=[], metavar="N", help=text)
    delay = UNSEALED_AFTER // timedelta(seconds=1)
    verify.add_argument("--unsealed-after", type=parse_number, default=delay, metavar="SECONDS")
    verify.add_argument("--json", action="store_true", help="one object per finding, then one for the summary")
    prove = add("prove", _prove, "print the proof that an event is in the log")
    prove.add_argument("event_id", type=uuid.UUID, metavar="EVENT_ID")
    check = add("check-proof", _check_proof, "check a proof, like python -m django_phi_oidc.audit.log.bundle")
    check.add_argument("file", type=Path)
    check.add_argument("--public-key", action="append", required=True, metavar="KEY")
    consistency = add("consistency", _consistency, "print the proof that one checkpoint continues another")
    consistency.add_argument("old", type=Path)
    consistency.add_argument("new", type=Path)
    checkpoint = add("checkpoint", _checkpoint, "print the newest checkpoint, to be kept elsewhere")
    checkpoint.add_argument("--public-key", action="store_true", help="print the verifier key instead")
    export = add("export", _export, "print events as lines of JSON")
    for name in _FILTER_OPTIONS:
        export.add_argument(f"--{name}", type=_parse_time if name in ("since", "until") else str)
    archive = add("archive", _archive, "write sealed events to a file that verify accepts")
    archive.add_argument("file", type=Path, help="a new file; compressed if its name ends with .gz")
    archive.add_argument("--first", type=int, metavar="N", help="the first leaf (default: after the last archive)")
    archive.add_argument("--before", type=_parse_time, metavar="TIME", help="only events sealed before that time")
    resume = add("resume", _resume, "continue a log that was restored from a backup")
    resume.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the largest one kept elsewhere")
    resume.add_argument("--reason", required=True, help="why it was restored; recorded in the audit log")
    add("repair", _repair, "create the triggers again as the migrations made them; as the owner of the tables")
    grants = add("grants", _grants, "print the SQL for a PostgreSQL role that cannot change the audit log")
    grants.add_argument("role")
    grants.add_argument("--sealer", action="store_true", help="for the process that holds the signing key")


def _run(handler: Handler, options: Options, output: Output) -> None:
    try:
        handler(options, output)
    except DatabaseError as error:
        raise CommandError(f"Database error: {error}") from error
    except (LookupError, OSError, UnicodeDecodeError) as error:
        raise CommandError(str(error) or type(error).__name__) from error


def _drain(options: Options, output: Output) -> None:
    moved = 0
    try:
        throttling.flush_refusal_counts(now=clock.now())
    finally:
        try:
            while step := outbox.flush():
                moved += step
        except AuditUnavailable as error:
            raise CommandError(f"{error} Moved: {moved}; the other events stay in the outbox.") from error
    if left := AuditOutbox.objects.count():
        raise CommandError(f"Moved: {moved}; left in the outbox: {left}. See the server log.")
    if (emergency := conf.emergency()) and emergency.spool:
        try:
            moved += spool.flush_spool(emergency.spool, now=clock.now())
        except OSError as error:
            raise CommandError(f"The spool cannot be read: {type(error).__name__}. Moved: {moved}.") from error
    output.write(f"Moved: {moved}.")


def _seal(options: Options, output: Output) -> None:
    progress, events, refused = ProgressLine(output, "sealed"), 0, 0
    for batch in sequencer.append_all_to_log(
        key=signing_keys.get_signing_key(), clock=clock.now, retry_refused=options["again"]
    ):
        events, refused = events + batch.event_count, refused + batch.refused_count
        progress(events)
    progress.end()
    output.write(f"Sealed: {events}; refused: {refused}.")
    if refused:
        text = "Events were refused: their MAC is wrong or its key is missing, or they are no events."
        raise CommandError(f"{text} See `audit verify`.")


def _verify(options: Options, output: Output) -> None:
    keys = signing_keys.get_public_keys()
    witnessed = [_read_witnessed_checkpoint(path) for path in options["checkpoint"]]
    if options["copy"]:
        if options["archive"]:
            raise CommandError("--copy reads archives, too: name them there.")
        _verify_copy(options, output, keys, witnessed)
        return
    verified = [archives.verify_archive(path, keys) for path in options["archive"]]
    summary, progress = VerificationSummary(), ProgressLine(output, "verified")
    with archives.open_archives(verified) if verified else nullcontext(lambda index: None) as find_archived:
        for finding in verify_log(
            keys=keys,
            now=clock.now(),
            summary=summary,
            witnessed_checkpoints=witnessed,
            find_archived=find_archived,
            archived_restore_events=[event for archive in verified for event in archive.restore_events],
            known_lost_sizes=options["lost_size"],
            unsealed_after=timedelta(seconds=options["unsealed_after"]),
            progress=progress,
        ):
            progress.end()
            _write_finding(finding, output)
    progress.end()
    outcome = "failure" if summary.fault_count else "success"
    _record(Action.AUDIT_VERIFIED, outcome=outcome, detail=summary.build_event_detail())
    _write_totals(summary, output, lambda row: _SUMMARY.format(**row, total=row["faults"] or "no"))
    if summary.fault_count > summary.counts_by_kind[FindingKind.PROTECTION_ALTERED]:
        raise CommandError("The audit log was changed after it was sealed.")
    if summary.fault_count:
        raise CommandError("The audit log can be changed: `audit repair` restores its triggers.")


def _verify_copy(options: Options, output: Output, keys: Sequence[LogKey], witnessed: Sequence[Checkpoint]) -> None:
    """Verify files. The database is not used at all: it may be what the copy is compared with later."""
    summary = VerificationSummary()
    for finding in copies.verify_copy(
        copies.read_copy_lines(options["copy"]),
        keys=keys,
        summary=summary,
        witnessed_checkpoints=witnessed,
        known_lost_sizes=options["lost_size"],
    ):
        _write_finding(finding, output)
    _write_totals(summary, output, lambda _: copies.render_summary(summary))
    if summary.fault_count:
        raise CommandError("The copy is not what was sealed, or not all of it.")


def _write_finding(finding: LogFinding, output: Output) -> None:
    row = {"kind": finding.kind.value, "fault": finding.is_fault}
    row |= {name: getattr(finding, name) for name in ("event_id", "leaf_index", "tree_size", "text")}
    output.write_row(row, lambda _: finding.render_line())


def _write_totals(summary: VerificationSummary, output: Output, format_row: Callable[[Mapping[str, Any]], str]) -> None:
    counts = {kind.value: count for kind, count in sorted(summary.counts_by_kind.items())}
    totals = {name: getattr(summary, name) for name in ("tree_size", "events", "checkpoints", "waiting", "archived")}
    output.write_row(totals | {"faults": summary.fault_count, "found": counts}, format_row)


def _repair(options: Options, output: Output) -> None:
    before = triggers.list_deviations()
    triggers.repair()
    left = triggers.list_deviations()
    for text in before:
        output.write(f"{'left' if text in left else 'repaired'}: {text}")
    if left:
        raise CommandError("Drop the triggers and rules that are left, and correct the settings of the server.")
    output.write("The audit log is append-only, as the migrations made it. Run `audit verify`.")


def _record(action: Action, **fields: Any) -> None:
    record(action, origin=current_origin(), now=clock.now(), **fields)


def _prove(options: Options, output: Output) -> None:
    proof = proofs.create_inclusion_proof(options["event_id"])
    _record(Action.AUDIT_EXPORTED, resource=f"AuditEvent/{options['event_id']}", detail={"format": "proof"})
    output.write(proof)


def _check_proof(options: Options, output: Output) -> None:
    output.write(bundle.verify_proof_file(options["file"], public_keys=options["public_key"]))


def _consistency(options: Options, output: Output) -> None:
    old, new = (options[name].read_text("utf-8") for name in ("old", "new"))
    output.write(proofs.create_consistency_proof(old, new))


def _checkpoint(options: Options, output: Output) -> None:
    newest = AuditCheckpoint.objects.last()
    if options["public_key"]:
        name = signing_keys.get_checkpoint_origin(newest.epoch if newest else 1)
        for key in signing_keys.get_public_keys():
            if isinstance(key, RetiredKey):
                output.write(f"{encode_verifier_key(name, key.public_key)} until {key.max_tree_size} events")
            else:
                output.write(encode_verifier_key(name, key))
    elif newest is None:
        raise CommandError("The audit log has no checkpoint yet.")
    else:
        output.write(newest.note)


def _export(options: Options, output: Output) -> None:
    filters = EventFilters(**{name: options[name] or getattr(EventFilters(), name) for name in _FILTER_OPTIONS})
    detail = {"format": "json", "filters": list(filters.list_used_names())}
    _record(Action.AUDIT_EXPORTED, subject=filters.subject, detail=detail)
    for row in iterate_events(filters):
        output.write(serialize_event(parse_event_row(row)))


def _archive(options: Options, output: Output) -> None:
    checkpoints = AuditCheckpoint.objects.order_by("-tree_size")
    if options["before"]:
        checkpoints = checkpoints.filter(sealed_at__lt=options["before"])
    last = checkpoints.first()
    if last is None:
        raise CommandError("There is no checkpoint from before that time.")
    first = _get_first_unarchived_leaf() if options["first"] is None else options["first"]
    progress = ProgressLine(output, "archived")
    size = last.tree_size
    digest = archives.write_archive(options["file"], first_leaf_index=first, tree_size=size, progress=progress)
    progress.end()
    _record(Action.AUDIT_ARCHIVED, detail={"first": first, "tree_size": size, "sha256": digest})
    output.write(f"{options['file']}: leaves {first} to {size - 1}, SHA-256 {digest}.")


def _get_first_unarchived_leaf() -> int:
    """Return where the last archive ended. Events with an invalid MAC, or without a size, are ignored."""
    events = AuditEvent.objects.filter(action=Action.AUDIT_ARCHIVED).order_by("-id").iterator(chunk_size=100)
    sizes = (parse_detail(event.detail).get("tree_size") for event in events if has_valid_row_mac(event))
    return next((size for size in sizes if type(size) is int), 0)


def _resume(options: Options, output: Output) -> None:
    note, reason = options["checkpoint"].read_text("utf-8"), options["reason"]
    output.write(
        recovery.resume_log(witnessed_note=note, reason=reason, key=signing_keys.get_signing_key(), now=clock.now())
    )


def _grants(options: Options, output: Output) -> None:
    try:
        for statement in db_privileges.grant_statements(options["role"], is_sealer=options["sealer"]):
            output.write(statement)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _read_witnessed_checkpoint(path: Path) -> Checkpoint:
    try:
        return verify_checkpoint(path.read_text("utf-8"), signing_keys.get_public_keys())
    except CheckpointInvalid as error:
        raise CommandError(f"{path}: {error}") from error


def _parse_time(text: str) -> datetime:
    time = parse_time(text)
    if time < _EARLIEST_TIME:
        raise ArgumentTypeError("the audit log has no events from before 1970")
    return time
