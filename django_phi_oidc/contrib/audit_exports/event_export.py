"""Export events of the audit log in constant memory: as CSV, as sealed JSON lines, or as FHIR."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from io import StringIO

from ...audit.events import OUTCOMES, AuthenticatedEvent, Event, canonical_json, serialize_event
from ...audit.formats.fhir import event_to_fhir
from ...audit.formats.items import SealedEvent
from ...audit.models import AuditEvent, AuditLeaf
from ...audit.router import AUDIT_ALIAS
from ...audit.search import EventFilters, RowUnreadable, iterate_event_batches
from ...audit.storage import UNLOADABLE_ROW_ERRORS, parse_event_row, translate_database_errors
from ..common.csv_safety import escape_formulas

CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl; charset=utf-8",
    "fhir": "application/fhir+ndjson",
}
FILE_EXTENSIONS = {"csv": "csv", "jsonl": "jsonl", "fhir": "ndjson"}
_CSV_COLUMNS = (*Event._fields, "mac")


def export_events(
    filters: EventFilters, export_format: str, *, hostname: str
) -> Iterator[tuple[int, bytes]]:
    """Yield the events that match the filters, oldest first: their number, and their lines.

    export_format: a key of CONTENT_TYPES. CSV has a header line, and its formulas are escaped. In
    the other formats each line is an event. hostname: of this machine, for FHIR. No MAC is checked.
    Raises: AuditUnavailable, RowUnreadable; the lines yielded until then are incomplete.
    """
    if export_format == "csv":
        yield 0, _render_csv([_CSV_COLUMNS])
    for rows in iterate_event_batches(filters):
        try:
            events = [_load_event(row) for row in rows]
            if export_format == "csv":
                lines = _render_csv(map(_csv_row, events))
            else:
                is_fhir = export_format == "fhir"
                lines = _join_lines(
                    _fhir_lines(events, hostname) if is_fhir else map(serialize_event, events)
                )
        except (*UNLOADABLE_ROW_ERRORS, RecursionError) as error:
            raise RowUnreadable("A row is not an event; `audit verify` identifies it.") from error
        yield len(rows), lines


def incomplete_marker(export_format: str, code: str) -> bytes:
    """Return the last line of an incomplete export, which no reader mistakes for an event."""
    if export_format == "csv":
        return _render_csv([[f"INCOMPLETE: {code}"]])
    if export_format == "fhir":
        issue = {"severity": "fatal", "code": "incomplete", "diagnostics": code}
        return _join_lines([canonical_json({"resourceType": "OperationOutcome", "issue": [issue]})])
    return _join_lines([canonical_json({"incomplete": code})])


def _load_event(row: AuditEvent) -> AuthenticatedEvent:
    """Raises: one of UNLOADABLE_ROW_ERRORS, or RecursionError, for a row that no format can
    represent.
    """
    if not isinstance(json.loads(row.detail), dict) or row.outcome not in OUTCOMES:
        raise ValueError("Not an event.")
    return parse_event_row(row)


def _csv_row(authenticated_event: AuthenticatedEvent) -> list[str]:
    event = authenticated_event.event
    at = event.occurred_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    values = event._replace(occurred_at=f"{at}Z")  # type: ignore[arg-type]  # text, for CSV
    row = []
    for value in (*values, authenticated_event.mac.hex()):
        row.append(escape_formulas(str(value)))
    return row


def _render_csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _fhir_lines(events: list[AuthenticatedEvent], hostname: str) -> Iterator[str]:
    with translate_database_errors():
        leaves = AuditLeaf.objects.using(AUDIT_ALIAS).filter(
            event_id__in=[item.event.id for item in events]
        )
        leaf_by_id = {leaf.event_id: leaf for leaf in leaves}
    for authenticated_event in events:
        leaf = leaf_by_id.get(authenticated_event.event.id)
        if leaf:
            index = leaf.leaf_index
            leaf_hash = bytes(leaf.leaf_hash)
        else:
            index = -1
            leaf_hash = b""

        item = SealedEvent(
            leaf_index=index, leaf_hash=leaf_hash, authenticated_event=authenticated_event
        )
        yield canonical_json(event_to_fhir(item, hostname=hostname))


def _join_lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in lines).encode("utf-8", "replace")
