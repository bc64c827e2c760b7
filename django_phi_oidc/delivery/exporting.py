"""The trail's events as a file, in flat memory: for a spreadsheet, as they were sealed, or as FHIR has them."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from io import StringIO

from ..audit.browsing import Filters, RowUnreadable, stretches
from ..audit.events import OUTCOMES, Event, Finished, event_text
from ..audit.models import AuditEvent, AuditLeaf
from ..audit.routing import AUDIT_ALIAS
from ..audit.writing import UNLOADABLE, finished_from, reaching_the_trail
from ..spreadsheets import inert
from .fhir import event_to_fhir
from .formats import compact_json
from .items import SealedEvent

CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl; charset=utf-8",
    "fhir": "application/fhir+ndjson",
}
ENDINGS = {"csv": "csv", "jsonl": "jsonl", "fhir": "ndjson"}
_COLUMNS = (*Event._fields, "mac")


def export(filters: Filters, form: str, *, site: str) -> Iterator[tuple[int, bytes]]:
    """Yield the events that the filters let through, the oldest first: how many, and their lines.

    form: of CONTENT_TYPES. CSV begins with the names of its columns, and is inert in a spreadsheet; a line of the
    others is an event. site: the name of this machine, for FHIR. No MAC is checked.
    Raises: AuditUnavailable; RowUnreadable, and then what was yielded is not the whole.
    """
    if form == "csv":
        yield 0, _sheet([_COLUMNS])
    for rows in stretches(filters):
        try:
            lines = _written([_readable(row) for row in rows], form, site=site)
        except (*UNLOADABLE, RecursionError) as error:
            raise RowUnreadable("A row can be no event: `audit verify` names it.") from error
        yield len(rows), lines


def torn(form: str, code: str) -> bytes:
    """Return the line that ends an export which can't go on: no reader takes it for an event."""
    if form == "csv":
        return _sheet([[f"INCOMPLETE: {code}"]])
    if form == "fhir":
        issue = {"severity": "fatal", "code": "incomplete", "diagnostics": code}
        return _lines([compact_json({"resourceType": "OperationOutcome", "issue": [issue]})])
    return _lines([compact_json({"incomplete": code})])


def _readable(row: AuditEvent) -> Finished:
    """Raises: one of UNLOADABLE, or RecursionError, where no format can tell of the row."""
    if not isinstance(json.loads(row.detail), dict) or row.outcome not in OUTCOMES:
        raise ValueError("No event.")
    return finished_from(row)


def _written(finished: list[Finished], form: str, *, site: str) -> bytes:
    if form == "csv":
        return _sheet(map(_cells, finished))
    return _lines(_fhir(finished, site=site) if form == "fhir" else map(event_text, finished))


def _cells(finished: Finished) -> list[str]:
    event = finished.event
    at = event.occurred_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return [inert(str(value)) for value in (*event._replace(occurred_at=f"{at}Z"), finished.mac.hex())]  # type: ignore[arg-type]  # a text, for the sheet


def _sheet(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _fhir(finished: list[Finished], *, site: str) -> Iterator[str]:
    with reaching_the_trail():
        leaves = AuditLeaf.objects.using(AUDIT_ALIAS).filter(event_id__in=[each.event.id for each in finished])
        places = {leaf.event_id: leaf for leaf in leaves}
    for each in finished:
        leaf = places.get(each.event.id)
        index, digest = (leaf.leaf_index, bytes(leaf.leaf_hash)) if leaf else (-1, b"")
        item = SealedEvent(leaf_index=index, leaf_hash=digest, finished=each)
        yield compact_json(event_to_fhir(item, site=site))


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "replace")
