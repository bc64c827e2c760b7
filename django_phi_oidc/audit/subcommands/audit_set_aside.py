"""List, retry and drop the events that readers of the audit log have set aside (`phi_oidc audit
set-aside`).
"""

import json
import uuid
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial

from django.core.management.base import CommandError

from ..._internal import clock
from ..._internal.command_arguments import Handler, Options, add_command, add_dry_run
from ..._internal.command_output import Output
from ..models import AuditUnsealed, SetAsideEvent
from ..request_context import current_origin
from ..set_aside_events import drop_events, list_set_aside_events, retry_events
from ..storage import translate_database_errors

MAX_REFUSED_ROWS = 1_000
"""Events that the sealer refused, in a list."""
_SEALER = "sealer"


def add_arguments(parser: ArgumentParser, *, run: Callable[..., None]) -> None:
    """Add the subcommands of `audit set-aside`. run: calls a handler, and translates its errors."""
    commands = parser.add_subparsers(dest="set_aside_command", required=True, metavar="SUBCOMMAND")

    def add(name: str, handler: Handler, help_text: str) -> ArgumentParser:
        return add_command(commands, name, partial(run, handler), help_text)

    add("list", _list, "List the events that readers could not process.")
    retry = add("retry", _retry, "Give events to their readers again.")
    retry.add_argument(
        "event_id",
        type=uuid.UUID,
        nargs="*",
        metavar="EVENT_ID",
        help="Only these; by default all that are set aside.",
    )
    drop = add("drop", _drop, "Delete events from the list, and print those only in the outbox.")
    drop.add_argument("event_id", type=uuid.UUID, nargs="+", metavar="EVENT_ID", help="Their ids.")
    drop.add_argument("--reason", required=True, help="Why; recorded in the audit log.")
    add_dry_run(drop)


def _list(options: Options, output: Output) -> None:
    for row in list_set_aside_events():
        members = {
            "reader": row.reader,
            "event_id": str(row.event_id),
            "error": row.error,
            "set_aside_at": row.set_aside_at,
            "tried_at": row.tried_at,
        }
        text = f"{row.event_id}  {row.reader}: {row.error}, tried {row.tried_at:%Y-%m-%d %H:%M}"
        output.write_row(members, text)
    with translate_database_errors():
        refused = AuditUnsealed.objects.filter(refused=True).order_by("event_id")
        refused_ids = list(refused.values_list("event_id", flat=True)[: MAX_REFUSED_ROWS + 1])
    for event_id in refused_ids[:MAX_REFUSED_ROWS]:
        members = {"reader": _SEALER, "event_id": str(event_id), "error": "refused"}
        output.write_row(members, f"{event_id}  {_SEALER}: refused; see `audit seal --again`")
    if len(refused_ids) > MAX_REFUSED_ROWS:
        output.note(f"The sealer refused more than these {MAX_REFUSED_ROWS} events.")


def _retry(options: Options, output: Output) -> None:
    rows = _get_rows(options["event_id"])
    errors = retry_events(rows, origin=current_origin(), now=clock.now())
    for row, error in errors.items():
        output.warn(f"{row.event_id} stays set aside by {row.reader}: {error}")
    processed = len(rows) - len(errors)
    fault = ""
    if errors:
        fault = f"Still set aside: {len(errors)}."
    output.confirm(
        {"processed": processed, "left": len(errors)}, f"Processed: {processed}.", fault=fault
    )


def _drop(options: Options, output: Output) -> None:
    rows = _get_rows(options["event_id"])
    members = {"dropped": len(rows)}
    if options["dry_run"]:
        output.preview(members, f"{len(rows)} would be dropped.")
        return
    texts = drop_events(rows, reason=options["reason"], origin=current_origin(), now=clock.now())
    for row, text in texts.items():
        # As JSON, because the text may contain control characters of a terminal.
        output.write_row({"event_id": str(row.event_id), "text": text}, json.dumps(text))
    output.confirm(members, f"Dropped: {len(rows)}.")


def _get_rows(event_ids: Sequence[uuid.UUID]) -> list[SetAsideEvent]:
    """Return the rows of these events; without ids, all. Raises: CommandError."""
    rows = list_set_aside_events(event_ids)
    known_ids = {row.event_id for row in rows}
    for event_id in event_ids:
        if event_id not in known_ids:
            raise CommandError(f"The event {event_id} is not set aside.")
    return rows
