"""Operate the audit log: seal, verify, prove, export and archive it."""

import json
import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, connections

from ..._internal import clock
from ..._internal.command_arguments import (
    PUBLIC_KEY_HELP,
    Handler,
    Options,
    add_command,
    build_argument_error,
    create_choice_parser,
    parse_number,
    parse_time,
)
from ..._internal.command_output import Output, ProgressLine
from ...errors import AuditUnavailable
from ...extensions import event_queues
from .. import conf, db_privileges, outbox, partitions, throttling, triggers
from ..errors import CheckpointInvalid, ColumnsAltered, LogDamaged
from ..events import OUTCOMES, Action, list_actions, serialize_event
from ..log import archive as archives
from ..log import (
    archive_files,
    archive_records,
    bundle,
    copies,
    cosigned_checkpoints,
    proofs,
    recovery,
    sequencer,
    signing_keys,
    verification_records,
    witnesses,
)
from ..log.file_verification import verify_exported_file
from ..log.findings import FindingKind, LogFinding, VerificationSummary
from ..log.ranges import LogRange, Part, draw_sample, find_newest_checkpoint
from ..log.verifier import UNSEALED_AFTER, add_unread_log, verify_log
from ..merkle.checkpoint import (
    Checkpoint,
    LogKey,
    RetiredKey,
    encode_verifier_key,
    verify_checkpoint,
)
from ..models import AuditCheckpoint, AuditOutbox
from ..recorder import record
from ..request_context import current_origin
from ..router import AUDIT_ALIAS
from ..search import EventFilters, iterate_events
from ..storage import parse_event_row
from . import audit_archives, audit_publication, audit_set_aside

READING_COMMANDS = (
    "audit attach",
    "audit check-proof",
    "audit checkpoint",
    "audit consistency",
    "audit grants",
    "audit partition",
    "audit repair",
    "audit set-aside list",
    "audit tiles",
    "audit witnesses",
)
READING_OPTIONS = {"audit verify": "copy"}
COMMANDS_WITHOUT_CHECKS = ("audit check-proof",)

_EARLIEST_TIME = datetime(1970, 1, 2, tzinfo=UTC)
_SUMMARY = (
    "{events} sealed events ({archived} of them from archives), {checkpoints} checkpoints, "
    "{waiting} events wait to be sealed; {total} faults."
)
_EXPORT_SUMMARY = (
    "{line_count} events, SHA-256 {sha256}: {sealed_count} are as sealed under the checkpoint of "
    "{tree_size} events, {waiting_count} wait to be sealed, {detached_count} have left the log, "
    "{unlisted_count} do not match the filters; {faults} faults."
)
_FILTER_OPTIONS = ("action", "outcome", "actor", "on_behalf_of", "subject", "since", "until")


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="audit_command", required=True, metavar="SUBCOMMAND")

    def add(name: str, handler: Handler, help_text: str) -> ArgumentParser:
        return add_command(commands, name, partial(_run, handler), help_text)

    add("drain", _drain, "Move the events in the outbox to the audit log.")
    seal = add("seal", _seal, "Seal the new events, until none is left.")
    again_help = "Also retry refused events, such as after a missing MAC key."
    seal.add_argument("--again", action="store_true", help=again_help)
    text = "Recompute what is new in the log, or all of it, and report each fault."
    _add_verification_arguments(add("verify", _verify, text))
    add(
        "witnesses",
        audit_publication.ask_witnesses,
        "Ask the witnesses to cosign the newest checkpoint, and print what each has cosigned.",
    )
    tiles = add(
        "tiles",
        audit_publication.write_tiles,
        "Export new tiles of the log: hashes and the checkpoint, and no events.",
    )
    tiles.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="Export here, not to the declared place."
    )
    prove = add("prove", _prove, "Print the proof that an event is in the log.")
    prove.add_argument("event_id", type=uuid.UUID, metavar="EVENT_ID", help="Its UUID.")
    text = "An archive with the event, if its partition was detached; may be repeated."
    prove.add_argument(
        "--archive", action="append", type=Path, default=[], metavar="FILE", help=text
    )
    check = add(
        "check-proof",
        _check_proof,
        "Check a proof, like python -m django_phi_oidc.audit.log.bundle.",
    )
    check.add_argument("file", type=Path, help="The proof.")
    check.add_argument(
        "--public-key", action="append", required=True, metavar="KEY", help=PUBLIC_KEY_HELP
    )
    bundle.add_witness_arguments(check)
    consistency = add(
        "consistency", _consistency, "Print the proof that one checkpoint continues another."
    )
    consistency.add_argument("old", type=Path, help="The file of the smaller checkpoint.")
    consistency.add_argument("new", type=Path, help="The file of the larger checkpoint.")
    checkpoint = add(
        "checkpoint", _checkpoint, "Print the newest checkpoint, to be kept elsewhere."
    )
    checkpoint.add_argument(
        "--public-key", action="store_true", help="Print the verifier key instead."
    )
    _add_filters(add("export", _export, "Print events as lines of JSON."))
    check_export = add(
        "check-export",
        _check_export,
        "Check an exported file of JSON lines against the sealed log.",
    )
    check_export.add_argument(
        "file", type=Path, help="The export; decompressed if its name ends with .gz."
    )
    _add_filters(check_export)
    archive = add(
        "archive",
        audit_archives.write_archive,
        "Write sealed events to a file that verify accepts.",
    )
    archive.add_argument(
        "file", type=Path, help="A new file; compressed if its name ends with .gz."
    )
    archive.add_argument(
        "--first", type=int, metavar="N", help="The first leaf (default: the first in no archive)."
    )
    archive.add_argument(
        "--before", type=_parse_time, metavar="TIME", help="Only events sealed before that time."
    )
    text = (
        "Then detach the partitions of past months whose events are "
        "all in archives, as the owner of the tables."
    )
    archive.add_argument("--detach", action="store_true", help=text)
    text = (
        "Create one partition a month for the log, as the owner of "
        "the tables, while others write (PostgreSQL)."
    )
    add("partition", _partition, text)
    attach = add(
        "attach",
        _attach,
        "Return a partition to the log after it was detached, as the owner of the tables.",
    )
    attach.add_argument("table", metavar="TABLE", help="Its name.")
    text = "List, retry or drop the events that a reader of the log could not process."
    set_aside = commands.add_parser("set-aside", help=text, description=text)
    audit_set_aside.add_arguments(set_aside, run=_run)
    resume = add("resume", _resume, "Continue a log that was restored from a backup.")
    text = "The largest one kept elsewhere."
    resume.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help=text)
    resume.add_argument(
        "--reason", required=True, help="Why it was restored; recorded in the audit log."
    )
    add(
        "repair",
        _repair,
        "Create the triggers again as the migrations made them, as the owner of the tables.",
    )
    grants = add(
        "grants", _grants, "Print the SQL for a PostgreSQL role that cannot change the audit log."
    )
    grants.add_argument("role", help="Its name.")
    grants.add_argument(
        "--sealer", action="store_true", help="For the process that has the signing key."
    )


def _add_verification_arguments(verify: ArgumentParser) -> None:
    extent = verify.add_mutually_exclusive_group()
    text = "Verify all events, and not only those after the last verification without faults."
    extent.add_argument("--full", action="store_true", help=text)
    text = "Verify a random share of all events instead, above 0 and up to 1."
    extent.add_argument("--sample", type=_parse_share, metavar="SHARE", help=text)
    files = {"--checkpoint": "A checkpoint kept elsewhere", "--archive": "An archive of events"}
    for option, text in files.items():
        help_text = f"{text}; may be repeated."
        verify.add_argument(
            option, action="append", type=Path, default=[], metavar="FILE", help=help_text
        )
    text = (
        "Verify these files instead of the database: JSON lines "
        "of a sink, or archives, in their order."
    )
    verify.add_argument("--copy", action="append", type=Path, default=[], metavar="FILE", help=text)
    text = "The size that a restore lost, which is then no fault; may be repeated."
    verify.add_argument(
        "--lost-size", action="append", type=int, default=[], metavar="N", help=text
    )
    delay = UNSEALED_AFTER // timedelta(seconds=1)
    text = f"Report events that have waited for longer to be sealed (default: {delay})."
    verify.add_argument(
        "--unsealed-after", type=parse_number, default=delay, metavar="SECONDS", help=text
    )


def _add_filters(export: ArgumentParser) -> None:
    parse_action = create_choice_parser("action", list_actions())
    export.add_argument(
        "--action", type=parse_action, help="Only events of this action, such as claim.revealed."
    )
    parse_outcome = create_choice_parser("outcome", OUTCOMES)
    export.add_argument(
        "--outcome", type=parse_outcome, help=f"Only events of this outcome: {', '.join(OUTCOMES)}."
    )
    actor_help = (
        "Only events of this actor: the primary key of a user, or the operator of a command (os:…)."
    )
    export.add_argument("--actor", help=actor_help)
    represented_help = (
        "Only events of actors who acted for this account: the primary key of a user."
    )
    export.add_argument("--on-behalf-of", metavar="ACCOUNT", help=represented_help)
    export.add_argument("--subject", help="Only events about this subject: its UUID.")
    export.add_argument(
        "--since", type=_parse_time, metavar="TIME", help="Only events of this time or later."
    )
    export.add_argument(
        "--until", type=_parse_time, metavar="TIME", help="Only events before this time."
    )


def _run(handler: Handler, options: Options, output: Output) -> None:
    try:
        handler(options, output)
    except DatabaseError as error:
        raise CommandError(f"Database error: {error}") from error
    except (LookupError, OSError, ValueError) as error:
        raise CommandError(str(error) or type(error).__name__) from error


def _drain(options: Options, output: Output) -> None:
    moved = 0
    try:
        throttling.flush_refusal_counts(now=clock.now())
    finally:
        try:
            with ProgressLine(output, "events moved") as progress:
                while step := outbox.flush():
                    moved += step
                    progress(moved)
        except AuditUnavailable as error:
            raise CommandError(
                f"{error} Moved: {moved}; the other events stay in the outbox."
            ) from error
    if left := AuditOutbox.objects.count():
        raise CommandError(f"Moved: {moved}; left in the outbox: {left}. See the server log.")
    for queue in event_queues:
        try:
            moved += queue.flush(now=clock.now())
        except OSError as error:
            raise CommandError(
                f"The {queue.name} cannot be read: {type(error).__name__}. Moved: {moved}."
            ) from error
    output.confirm({"moved": moved}, f"Moved: {moved}.")


def _seal(options: Options, output: Output) -> None:
    events = refused = 0
    with ProgressLine(output, "events sealed") as progress:
        for batch in sequencer.append_all_to_log(
            key=signing_keys.get_signing_key(), clock=clock.now, retry_refused=options["again"]
        ):
            events = events + batch.event_count
            refused = refused + batch.refused_count
            progress(events)
    witnesses.submit_newest_checkpoint(clock=clock.now)
    row = {"sealed": events, "refused": refused}
    text = f"Sealed: {events}; refused: {refused}."
    fault = ""
    if refused:
        fault = (
            "Their MAC is wrong or its key is missing, or they are no events: see `audit verify`."
        )
    output.confirm(row, text, fault=fault)


def _verify(options: Options, output: Output) -> None:
    keys = signing_keys.get_public_keys()
    witnessed = [_read_witnessed_checkpoint(path) for path in options["checkpoint"]]
    if options["copy"]:
        if options["archive"]:
            raise build_argument_error("--copy reads archives, too: name them there.")
        _verify_copy(options, output, keys, witnessed)
        return
    verified = [archives.verify_archive(path, keys) for path in options["archive"]]
    archive_files.register_missing_archives(verified)
    summary = VerificationSummary()
    try:
        _write_findings(
            options,
            output,
            keys=keys,
            witnessed=witnessed,
            verified=verified,
            summary=summary,
        )
    except ColumnsAltered as error:
        _write_finding(add_unread_log(error, summary), output)

    if summary.fault_count:
        outcome = "failure"
    else:
        outcome = "success"

    _record(Action.AUDIT_VERIFIED, outcome=outcome, detail=summary.build_event_detail())
    is_sample = bool(options["sample"])
    _write_totals(summary, output, partial(_format_totals, is_sample=is_sample))
    # After the totals: an external signer may fail.
    if not is_sample and not summary.fault_count and (key := signing_keys.find_signing_key()):
        size = summary.verified_size
        root_hash = summary.verified_root
        verification_records.record_verified_log(size, root_hash, key=key, now=clock.now())
    counts = summary.counts_by_kind
    unwitnessed = counts[FindingKind.CHECKPOINT_UNWITNESSED]
    if summary.fault_count > counts[FindingKind.PROTECTION_ALTERED] + unwitnessed:
        raise CommandError("The audit log was changed after it was sealed.")
    if unwitnessed:
        raise CommandError(
            "The newest checkpoint is not cosigned by enough witnesses: see `audit witnesses`."
        )
    if summary.fault_count:
        raise CommandError("The audit log can be changed: `audit repair` restores its triggers.")


def _write_findings(
    options: Options,
    output: Output,
    *,
    keys: Sequence[LogKey],
    witnessed: Sequence[Checkpoint],
    verified: Sequence[archives.LogArchive],
    summary: VerificationSummary,
) -> None:
    """Verify the database, and write the findings, which are counted in `summary`. Raises:
    ColumnsAltered.
    """
    restore_events = []
    for archive in verified:
        for event in archive.restore_events:
            restore_events.append(event)
    unsealed_after = timedelta(seconds=options["unsealed_after"])
    cosigned, findings = cosigned_checkpoints.verify_witnesses(
        keys, now=clock.now(), after=unsealed_after
    )
    for finding in findings:
        summary.add(finding)
        _write_finding(finding, output)
    witnessed = [*witnessed, *cosigned]
    start, parts = _select_events(options, keys, witnessed, output)
    if start:
        summary.first = start.tree.size
    else:
        summary.first = 0

    archived = archive_records.read_archive_record(keys)
    with (
        archives.open_archives(verified)
        if verified
        else nullcontext(lambda index: None) as find_archived,
        ProgressLine(output, "events verified") as progress,
    ):
        for finding in verify_log(
            keys=keys,
            now=clock.now(),
            summary=summary,
            start=start,
            parts=parts,
            witnessed_checkpoints=witnessed,
            find_archived=find_archived,
            archived_restore_events=archive_files.list_restore_events(keys, restore_events),
            archived_size=archived.archived_size if start or parts is not None else 0,
            detached_leaves=archive_records.find_detached_leaves(archived),
            known_lost_sizes=options["lost_size"],
            unsealed_after=unsealed_after,
            progress=progress,
        ):
            progress.end()
            _write_finding(finding, output)


def _select_events(
    options: Options, keys: Sequence[LogKey], witnessed: list[Checkpoint], output: Output
) -> tuple[LogRange | None, list[Part] | None]:
    """Return the range to verify (None: all), and the parts of a sample.

    The checkpoint of the last verification is added to the witnessed ones, unless the range begins
    there.
    """
    last = verification_records.find_last_verification(keys)
    is_continued = not (options["full"] or options["sample"] or options["archive"])
    if last and is_continued:
        try:
            return last.get_new_range(), None
        except LogDamaged as error:
            output.write(f"All events are verified: {error}")
    if last:
        witnessed.append(last.checkpoint)
    if not options["sample"]:
        return None, None
    # The largest size that is only claimed would draw the sample from leaves that do not exist.
    newest = find_newest_checkpoint(keys)
    return None, draw_sample(options["sample"], newest.tree_size if newest else 0)


def _format_totals(row: Mapping[str, Any], *, is_sample: bool) -> str:
    text = _SUMMARY.format(**row, total=row["faults"] or "no")
    if row["signed_late"]:
        text = f"{text} {row['signed_late']} of the events were signed late."
    if is_sample:
        return f"A sample: {text}"

    if row["first"]:
        return f"After {row['first']} events that were verified before: {text}"
    return text


def _verify_copy(
    options: Options, output: Output, keys: Sequence[LogKey], witnessed: Sequence[Checkpoint]
) -> None:
    """Verify files. The database is not used at all: it may be what the copy is compared with
    later.
    """
    summary = VerificationSummary()
    with ProgressLine(output, "lines verified") as progress:
        for finding in copies.verify_copy(
            progress.track(copies.read_copy_lines(options["copy"])),
            keys=keys,
            summary=summary,
            witnessed_checkpoints=witnessed,
            known_lost_sizes=options["lost_size"],
        ):
            progress.end()
            _write_finding(finding, output)
    _write_totals(summary, output, lambda _: copies.render_summary(summary))
    if summary.fault_count:
        raise CommandError("The copy is not what was sealed, or not all of it.")
    if summary.unproven:
        raise CommandError(f"Of the copy, {summary.unproven}.", returncode=2)


def _write_finding(finding: LogFinding, output: Output) -> None:
    row = {"kind": finding.kind.value, "fault": finding.is_fault}
    row |= {
        name: getattr(finding, name) for name in ("event_id", "leaf_index", "tree_size", "text")
    }
    output.write_row(
        row, output.colour(finding.render_line(), "failure" if finding.is_fault else "warning")
    )


def _write_totals(
    summary: VerificationSummary, output: Output, format_row: Callable[[Mapping[str, Any]], str]
) -> None:
    counts = {kind.value: count for kind, count in sorted(summary.counts_by_kind.items())}
    names = ("tree_size", "first", "events", "checkpoints", "waiting", "archived", "signed_late")
    totals = {name: getattr(summary, name) for name in names}
    output.write_row(totals | {"faults": summary.fault_count, "found": counts}, format_row)


def _repair(options: Options, output: Output) -> None:
    before = triggers.list_deviations()
    triggers.repair()
    left = triggers.list_deviations()
    for text in before:
        if text in left:
            state = "left"
        else:
            state = "repaired"
        output.write_row({"deviation": text, "state": state}, f"{state}: {text}")
    if left:
        raise CommandError(
            "Drop the triggers and rules that are left, and correct the settings of the server."
        )
    output.write("The audit log is append-only, as the migrations made it. Run `audit verify`.")


def _record(action: Action, **fields: Any) -> None:
    record(action, origin=current_origin(), now=clock.now(), **fields)


def _prove(options: Options, output: Output) -> None:
    if options["archive"]:
        keys = signing_keys.get_public_keys()
    else:
        keys = ()

    verified = [archives.verify_archive(path, keys) for path in options["archive"]]
    proof = proofs.create_inclusion_proof(options["event_id"], archives=verified)
    _record(
        Action.AUDIT_EXPORTED,
        resource=f"AuditEvent/{options['event_id']}",
        detail={"format": "proof"},
    )
    output.write_row({"event": str(options["event_id"]), "proof": json.loads(proof)}, proof)


def _check_proof(options: Options, output: Output) -> None:
    witnesses = bundle.build_witness_policy(options["witness"], quorum=options["quorum"])
    if not options["witness"]:
        keys = [*cosigned_checkpoints.get_witness_keys().values()]
        quorum = conf.witness_quorum()
        witnesses = bundle.WitnessPolicy(
            keys=keys, quorum=quorum if options["quorum"] is None else options["quorum"]
        )
    text = bundle.verify_proof_file(
        options["file"], public_keys=options["public_key"], witnesses=witnesses
    )
    output.write_row({"holds": True, "text": text}, text)


def _consistency(options: Options, output: Output) -> None:
    old, new = (options[name].read_text("utf-8") for name in ("old", "new"))
    proof = proofs.create_consistency_proof(old, new)
    output.write_row({"proof": json.loads(proof)}, proof)


def _checkpoint(options: Options, output: Output) -> None:
    newest = AuditCheckpoint.objects.last()
    if options["public_key"]:
        name = signing_keys.get_checkpoint_origin(newest.epoch if newest else 1)
        for key in signing_keys.get_public_keys():
            size = None
            if isinstance(key, RetiredKey):
                size = key.max_tree_size

            text = encode_verifier_key(name, key.public_key if isinstance(key, RetiredKey) else key)

            if size is None:
                until = ""
            else:
                until = f" until {size} events"

            output.write_row({"public_key": text, "max_tree_size": size}, f"{text}{until}")
    elif newest is None:
        raise CommandError("The audit log has no checkpoint yet.")
    else:
        note = cosigned_checkpoints.build_cosigned_note(newest.note)
        output.write_row({"checkpoint": note, "tree_size": newest.tree_size}, note)


def _build_filters(options: Options) -> EventFilters:
    return EventFilters(
        **{name: options[name] or getattr(EventFilters(), name) for name in _FILTER_OPTIONS}
    )


def _export(options: Options, output: Output) -> None:
    filters = _build_filters(options)
    detail = {"format": "json", "filters": list(filters.list_used_names())}
    _record(Action.AUDIT_EXPORTED, subject=filters.subject, detail=detail)
    with ProgressLine(output, "events exported", prints_rows=True) as progress:
        for row in progress.track(iterate_events(filters)):
            # JSON, with or without `--json`.
            output.stdout.write(serialize_event(parse_event_row(row)))


def _check_export(options: Options, output: Output) -> None:
    filters = _build_filters(options)
    detail = {"page": "file", "filters": list(filters.list_used_names())}
    _record(Action.AUDIT_VIEWED, subject=filters.subject, detail=detail)
    with ProgressLine(output, "lines checked") as progress:
        lines = progress.track(copies.read_copy_lines([options["file"]]))
        result = verify_exported_file(
            lines, filters, keys=signing_keys.get_public_keys(), now=clock.now()
        )
    for fault in result.faults:
        row = {
            "kind": fault.kind.value,
            "line": fault.line,
            "event_id": fault.event_id,
            "text": fault.describe(),
        }
        output.write_row(row, output.colour(fault.describe(), "failure"))
    names = (
        "line_count",
        "sealed_count",
        "waiting_count",
        "detached_count",
        "unlisted_count",
        "fault_count",
    )

    if result.checkpoint:
        size = result.checkpoint.tree_size
    else:
        size = 0

    totals = {name: getattr(result, name) for name in (*names, "has_later_events")}
    totals |= {"sha256": result.sha256, "tree_size": size}
    summary = {**totals, "faults": result.fault_count or "no"}
    output.write_row(totals, lambda row: _EXPORT_SUMMARY.format_map(summary))
    if result.fault_count:
        raise CommandError("The file is not what was exported with these filters.")
    if not result.is_verified:
        raise CommandError(
            "The file is not verified: it is empty, or some events are not sealed yet or have left."
        )


def _partition(options: Options, output: Output) -> None:
    if connections[AUDIT_ALIAS].vendor != "postgresql":
        raise CommandError("Only PostgreSQL has partitions.")
    names = partitions.partition_log(now=clock.now(), progress=output.write)
    output.confirm({"partitions": names}, f"Partitions: {', '.join(names)}.")


def _attach(options: Options, output: Output) -> None:
    names = partitions.attach_partition(options["table"])
    output.confirm({"tables": names}, f"Attached: {', '.join(names)}. Run `audit verify --full`.")


def _resume(options: Options, output: Output) -> None:
    note = options["checkpoint"].read_text("utf-8")
    reason = options["reason"]
    key = signing_keys.get_signing_key()
    checkpoint = recovery.resume_log(witnessed_note=note, reason=reason, key=key, now=clock.now())
    output.write_row({"checkpoint": checkpoint}, checkpoint)


def _grants(options: Options, output: Output) -> None:
    try:
        for statement in db_privileges.grant_statements(
            options["role"], is_sealer=options["sealer"]
        ):
            output.write_row({"sql": statement}, statement)
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


def _parse_share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise ArgumentTypeError("a share is above 0 and at most 1")
    return share
