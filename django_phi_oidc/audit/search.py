"""The trail and its checkpoints a page at a time, newest first: by index and keyset, never counted, never skipped over.

A page deep in the trail costs what the first one does, and events that come in between move nothing: a page begins
beside the row that the last one ended with.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import pairwise
from typing import Generic, TypeVar

from django.db import connections
from django.db.models import F, Func, QuerySet, TextField, UUIDField, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThanOrEqual

from .._internal.randomness import lowest_uuid7
from ..errors import AuditUnavailable, KeyMissing
from .events import Action
from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditUnsealed
from .router import AUDIT_ALIAS
from .storage import UNLOADABLE_ROW_ERRORS, has_valid_row_mac, translate_database_errors

PAGE_SIZE = 100
_MAX_CHECKED_EVENTS = 20
_PARTS_PER_QUERY = 100
"""Parts of one query: SQLite unites 500 at most."""
_PARTIAL_INDEX_CONDITIONS = {"action": {}, "outcome": {"outcome__lt": "success"}}
"""What their indexes leave out; those of the other columns leave the empty value out."""
_MAX_UUID = 2**128 - 1
_IdRange = tuple[uuid.UUID, uuid.UUID]
Row = TypeVar("Row")
Key = TypeVar("Key", uuid.UUID, int)


class RowUnreadable(LookupError):
    """A row among those asked for was altered to what can't be an event: `audit verify` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilters:
    """What an event must have, all of it; what is empty is not asked for."""

    action: str = ""
    outcome: str = ""
    actor: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    search: str = ""
    """A UUID: an event's own, or its session's, subject's or actor's. Anything else: its actor's."""

    def list_used_names(self) -> tuple[str, ...]:
        """Return the names of the filters that are not empty."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Events that tell of success, of one of these actions, about one of these subjects or resources."""

    actions: Collection[str]
    subjects: Collection[str] = ()
    resources: Collection[str] = ()
    """As the trail has them: a pseudonym where ids are keyed."""
    since: datetime | None = None
    excluded_actor: str = ""
    """Whose own acts are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetPage(Generic[Row, Key]):
    """Rows, newest first. newer, older: the key to ask for as after, as before; None where there is nothing."""

    rows: tuple[Row, ...] = ()
    newer_key: Key | None = None
    older_key: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """Where an event is in the log: its leaf, and the first checkpoint over it; or why it has none."""

    leaf_index: int | None
    tree_size: int | None
    refused: bool = False
    """The sealer found that its MAC does not fit."""


def list_events(
    filters: EventFilters,
    *,
    before: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    page_size: int = PAGE_SIZE,
) -> KeysetPage[AuditEvent, uuid.UUID]:
    """Return up to size events: the newest, or those next before an id, or next after one; by one query.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    span = _find_id_range(filters, before, after)
    if span is None:
        return KeysetPage()
    parts = [
        _limit_rows(page_size + 1, *part, newest_first=after is None) for part in _build_query_parts(filters, span)
    ]
    rows = parts[0] if len(parts) == 1 else _union_parts(parts, newest_first=after is None, limit=page_size + 1)
    return _build_page(rows, lambda row: row.id, before, after, page_size)


def list_events_of_query(
    query: EventQuery, *, before: uuid.UUID | None = None, after: uuid.UUID | None = None, page_size: int = PAGE_SIZE
) -> KeysetPage[AuditEvent, uuid.UUID]:
    """Return up to size events, as `page` does; by one query for a hundred subjects and resources.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    span = _find_id_range(EventFilters(since=query.since), before, after)
    if span is None:
        return KeysetPage()
    told = AuditEvent.objects.filter(action__in=query.actions, outcome="success")
    if query.excluded_actor:
        told = told.exclude(actor=query.excluded_actor)
    values = [("subject", each) for each in query.subjects] + [("resource", each) for each in query.resources]
    parts = [
        _limit_rows(page_size + 1, *_filter_by_index(*value, told, span), newest_first=after is None)
        for value in values
    ]
    found: dict[uuid.UUID, AuditEvent] = {}
    with _translate_row_errors():
        for start in range(0, len(parts), _PARTS_PER_QUERY):
            together = _union_parts(
                parts[start : start + _PARTS_PER_QUERY], newest_first=after is None, limit=page_size + 1
            )
            found |= {row.id: row for row in together}
    rows = sorted(found.values(), key=lambda row: row.id, reverse=after is None)[: page_size + 1]
    return _build_page(rows, lambda row: row.id, before, after, page_size)


def find_oldest_unarchived_time() -> datetime | None:
    """Return when the events in the table begin where those before them were taken out of it; None: all are there.

    They lie in archives, from the log's first leaf on. Raises: AuditUnavailable, RowUnreadable.
    """
    with _translate_row_errors():
        first = AuditLeaf.objects.filter(leaf_index=0).first()
        if first is None or AuditEvent.objects.filter(id=first.event_id).exists():
            return None
        oldest = AuditEvent.objects.order_by("id").first()
        return oldest.occurred_at if oldest else None


def list_checkpoints(
    *, before: int | None = None, after: int | None = None, page_size: int = PAGE_SIZE
) -> KeysetPage[AuditCheckpoint, int]:
    """Return up to size checkpoints: the newest, or those next before a tree size, or next after one; by one query.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    _validate_single_bound(before, after)
    rows = AuditCheckpoint.objects.order_by("-tree_size" if after is None else "tree_size")
    if before is not None:
        rows = rows.filter(tree_size__lt=before)
    if after is not None:
        rows = rows.filter(tree_size__gt=after)
    rows = rows[: page_size + 1]
    return _build_page(rows, lambda row: row.tree_size, before, after, page_size)


def find_event(event_id: uuid.UUID) -> AuditEvent | None:
    """Return the event of that id; its MAC is NOT checked. Raises: AuditUnavailable, RowUnreadable."""
    with _translate_row_errors():
        return AuditEvent.objects.filter(id=event_id).first()


def find_checkpoint(tree_size: int) -> AuditCheckpoint | None:
    """Return the checkpoint of that size; its signature is NOT checked. Raises: AuditUnavailable, RowUnreadable."""
    with _translate_row_errors():
        return AuditCheckpoint.objects.filter(tree_size=tree_size).first()


def get_log_position(event_id: uuid.UUID) -> LogPosition:
    """Return where that event is in the log. Raises: AuditUnavailable, RowUnreadable."""
    with _translate_row_errors():
        leaf = AuditLeaf.objects.filter(event_id=event_id).first()
        if leaf is None:
            refused = AuditUnsealed.objects.filter(event_id=event_id, refused=True).exists()
            return LogPosition(leaf_index=None, tree_size=None, refused=refused)
        over = AuditCheckpoint.objects.filter(tree_size__gt=leaf.leaf_index).order_by("tree_size").first()
        return LogPosition(leaf_index=leaf.leaf_index, tree_size=over.tree_size if over else None)


def count_events(column: str, value: str, times: Sequence[datetime], *, max_count: int) -> list[int]:
    """Return how many events have that value between each of times and the next, most at most; by one query.

    column: action, or outcome with a value that is no success: their indexes have the answer, and no event is read.
    Requires: times in their order, all of which the trail may have. Raises: AuditUnavailable.
    """
    own = {"action": "", "outcome": "AND outcome < 'success'"}[column]
    spans = ", ".join(["(%s, %s, %s)"] * (len(times) - 1))
    sql = f"""
        WITH span (place, begins, ends) AS (VALUES {spans})
        SELECT (SELECT COUNT(*) FROM (
            SELECT 1 FROM {AuditEvent._meta.db_table}
            WHERE {column} = %s {own} AND id >= begins AND id < ends LIMIT {max_count:d}
        ) AS part) FROM span ORDER BY place
    """  # noqa: S608 -- one of two names, and a number
    with translate_database_errors(), connections[AUDIT_ALIAS].cursor() as cursor:
        adapt = AuditEvent._meta.pk.get_db_prep_value
        ids = [adapt(lowest_uuid7(time), cursor.db) for time in times]
        given = [part for place, pair in enumerate(pairwise(ids)) for part in (place, *pair)]
        cursor.execute(sql, [*given, value])
        return [count for (count,) in cursor.fetchall()]


def count_unsealed(*, max_count: int) -> int:
    """Return how many events wait to be sealed, most at most. Raises: AuditUnavailable."""
    with translate_database_errors():
        return AuditUnsealed.objects.all()[:max_count].count()


def find_last_verification() -> AuditEvent | None:
    """Return the newest event that tells of a verification, and that its MAC fits.

    Raises: AuditUnavailable, RowUnreadable.
    """
    rows = list_events(EventFilters(action=Action.AUDIT_VERIFIED), page_size=_MAX_CHECKED_EVENTS).rows
    try:
        return next((row for row in rows if has_valid_row_mac(row)), None)
    except KeyMissing as error:
        raise AuditUnavailable from error


def _find_id_range(filters: EventFilters, before: uuid.UUID | None, after: uuid.UUID | None) -> _IdRange | None:
    """Return the first and the last id that are asked for; None where there can be none. An id begins with its time."""
    _validate_single_bound(before, after)
    first = max(
        0,
        lowest_uuid7(filters.since).int if filters.since else 0,
        after.int + 1 if after is not None else 0,
    )
    last = min(
        _MAX_UUID,
        lowest_uuid7(filters.until).int - 1 if filters.until else _MAX_UUID,
        before.int - 1 if before is not None else _MAX_UUID,
    )
    return (uuid.UUID(int=first), uuid.UUID(int=last)) if first <= last else None


def _validate_single_bound(before: object, after: object) -> None:
    if before is not None and after is not None:
        raise ValueError("A page lies before a row or after one.")


def _build_query_parts(filters: EventFilters, id_range: _IdRange) -> list[tuple[QuerySet[AuditEvent], tuple[str, ...]]]:
    """Return what is asked for, in as many parts as the search has meanings, each with its order by one index."""
    exact = {name: getattr(filters, name) for name in ("subject", "actor", "action", "outcome")}
    given = {name: value for name, value in exact.items() if value}
    rows = AuditEvent.objects.filter(**given)
    if not filters.search:
        lead = next((name for name, value in given.items() if (name, value) != ("outcome", "success")), None)
        rest = AuditEvent.objects.filter(**{name: value for name, value in given.items() if name != lead})
        return (
            [_filter_by_index(lead, given[lead], rest, id_range)]
            if lead
            else [(rows.filter(id__range=id_range), ("id",))]
        )
    try:
        id_ = uuid.UUID(filters.search)
    except ValueError:
        return [_filter_by_index("actor", filters.search, rows, id_range)]
    itself = rows.filter(id=id_, id__range=id_range), ("id",)
    return [itself, *(_filter_by_index(name, str(id_), rows, id_range) for name in ("session", "subject", "actor"))]


def _filter_by_index(
    name: str, value: str, rows: QuerySet[AuditEvent], id_range: _IdRange
) -> tuple[QuerySet[AuditEvent], tuple[str, ...]]:
    """Return the rows in span with that value, and the order of the index (name, id), which nothing else has.

    With `name = value ORDER BY id` PostgreSQL may go down the key of the whole trail instead, hoping to meet the value
    soon: somebody who did much, long ago, would cost a look at everything since. So both ends are pairs. The index
    leaves some values out, and SQLite must be told that they are not asked for.
    """
    pair = _RowValue(F(name), F("id"))
    first, last = (_RowValue(Value(value), Value(end, output_field=UUIDField())) for end in id_range)
    within = GreaterThanOrEqual(pair, first), LessThanOrEqual(pair, last)
    return rows.filter(*within, **_PARTIAL_INDEX_CONDITIONS.get(name, {f"{name}__gt": ""})), (name, "id")


def _limit_rows(
    limit: int, rows: QuerySet[AuditEvent], order: tuple[str, ...], *, newest_first: bool
) -> QuerySet[AuditEvent]:
    """Return so many rows of part, in the order of its index."""
    return rows.order_by(*(f"{'-' if newest_first else ''}{name}" for name in order))[:limit]


class _RowValue(Func):
    """Two values that are compared as one, the first one first."""

    template = "(%(expressions)s)"
    output_field = TextField()


def _union_parts(parts: Iterable[QuerySet[AuditEvent]], *, newest_first: bool, limit: int) -> Iterable[AuditEvent]:
    """Return the rows of all parts, each once, by one query. An OR would let the database choose to read the trail.

    Django puts no limit on the parts of a union on SQLite; in a subquery they have it everywhere.
    """
    compiled = [part.query.get_compiler(AUDIT_ALIAS).as_sql() for part in parts]
    union = " UNION ".join(f"SELECT * FROM ({sql}) AS part" for sql, _ in compiled)  # noqa: S608 -- Django's own
    order = f"ORDER BY id {'DESC' if newest_first else 'ASC'} LIMIT {limit:d}"
    values = [value for _, given in compiled for value in given]
    return AuditEvent.objects.using(AUDIT_ALIAS).raw(f"{union} {order}", values)


def _build_page(
    fetched_rows: Iterable[Row], key: Callable[[Row], Key], before: Key | None, after: Key | None, page_size: int
) -> KeysetPage[Row, Key]:
    with _translate_row_errors():
        rows = list(fetched_rows)
    more, rows = len(rows) > page_size, rows[:page_size]
    if not rows:
        return KeysetPage()
    if after is not None:
        rows.reverse()
    has_newer, has_older = (more, True) if after is not None else (before is not None, more)
    return KeysetPage(
        rows=tuple(rows),
        newer_key=key(rows[0]) if has_newer else None,
        older_key=key(rows[-1]) if has_older else None,
    )


@contextmanager
def _translate_row_errors() -> Iterator[None]:
    with translate_database_errors():
        try:
            yield
        except UNLOADABLE_ROW_ERRORS as error:
            raise RowUnreadable("A row can be no event: `audit verify` names it.") from error


def iterate_events(filters: EventFilters) -> Iterator[AuditEvent]:
    """Yield every event that the filters let through, the oldest first. Raises: AuditUnavailable, RowUnreadable."""
    for rows in iterate_event_batches(filters):
        yield from rows


def iterate_event_batches(filters: EventFilters) -> Iterator[tuple[AuditEvent, ...]]:
    """Yield what `each` does, a thousand at a time: only those are held in memory."""
    last = uuid.UUID(int=0)
    while rows := list_events(filters, after=last, page_size=1000).rows:
        yield rows[::-1]
        last = rows[0].id


def has_more_events_than(filters: EventFilters, max_count: int) -> bool:
    """Say whether the filters let more than most events through; none beyond that are counted.

    An event that is found by two meanings of the search counts twice. Raises: AuditUnavailable.
    """
    span = _find_id_range(filters, None, None)
    parts = _build_query_parts(filters, span) if span else []
    with _translate_row_errors():
        return sum(_limit_rows(max_count + 1, *part, newest_first=True).count() for part in parts) > max_count
