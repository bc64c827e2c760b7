"""List events and checkpoints in pages, newest first, by index and keyset, without counting rows or OFFSET.

A late page costs as much as the first one, and new events do not shift pages: a page begins next to a row.
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
_LARGE_PAGE_SIZE = 1_000
_MAX_CHECKED_EVENTS = 20
_PARTS_PER_QUERY = 100
"""Subqueries per query: SQLite allows 500 terms in a compound SELECT."""
_PARTIAL_INDEX_CONDITIONS = {"action": {}, "outcome": {"outcome__lt": "success"}}
"""The conditions of these indexes. The other ones exclude the empty value."""
_IdRange = tuple[uuid.UUID, uuid.UUID]
_QueryPart = tuple[QuerySet[AuditEvent], tuple[str, ...]]
"""Rows, and the order of the index that finds them."""
Row = TypeVar("Row")
Key = TypeVar("Key", uuid.UUID, int)


class RowUnreadable(LookupError):
    """A row was altered so that it is no event any more: `audit verify` reports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilters:
    """Conditions that an event must meet; empty ones are ignored."""

    action: str = ""
    outcome: str = ""
    actor: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    search: str = ""
    """A UUID of an event, a session, a subject or an actor; any other text is an actor."""

    def list_used_names(self) -> tuple[str, ...]:
        """Return the names of the non-empty filters."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Successful events with one of the actions, about one of the subjects or resources."""

    actions: Collection[str]
    subjects: Collection[str] = ()
    resources: Collection[str] = ()
    """As stored: pseudonyms if ids are keyed."""
    since: datetime | None = None
    excluded_actor: str = ""
    """An actor whose own events are left out."""
    purposes: Collection[str] = ()
    """Only events with one of these purposes; empty: with any."""
    excluded_purposes: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetPage(Generic[Row, Key]):
    """Rows, newest first. newer_key, older_key: the `after` and `before` of the adjacent pages; None without such."""

    rows: tuple[Row, ...] = ()
    newer_key: Key | None = None
    older_key: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """The leaf of an event, and the first checkpoint that covers it; or why there is none."""

    leaf_index: int | None
    tree_size: int | None
    refused: bool = False
    """The sequencer found that the MAC is invalid."""


def list_events(
    filters: EventFilters,
    *,
    before: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    page_size: int = PAGE_SIZE,
) -> KeysetPage[AuditEvent, uuid.UUID]:
    """Return a page of events by one query: the newest ones, or those adjacent to an id.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    id_range = _find_id_range(filters, before, after)
    if id_range is None:
        return KeysetPage()
    return _fetch_event_page(_build_query_parts(filters, id_range), before, after, page_size)


def list_events_of_query(
    query: EventQuery, *, before: uuid.UUID | None = None, after: uuid.UUID | None = None, page_size: int = PAGE_SIZE
) -> KeysetPage[AuditEvent, uuid.UUID]:
    """Return a page of events as `list_events` does, by one query per hundred subjects and resources.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    id_range = _find_id_range(EventFilters(since=query.since), before, after)
    if id_range is None:
        return KeysetPage()
    events = AuditEvent.objects.filter(action__in=query.actions, outcome="success")
    if query.excluded_actor:
        events = events.exclude(actor=query.excluded_actor)
    if query.purposes:
        events = events.filter(purpose__in=query.purposes)
    if query.excluded_purposes:
        events = events.exclude(purpose__in=query.excluded_purposes)
    values = [*(("subject", value) for value in query.subjects), *(("resource", value) for value in query.resources)]
    parts = [_filter_by_index(*value, events, id_range) for value in values]
    return _fetch_event_page(parts, before, after, page_size)


def iterate_event_pages_of_query(query: EventQuery) -> Iterator[tuple[AuditEvent, ...]]:
    """Yield all events of the query, newest first, in pages of a thousand. Raises: AuditUnavailable, RowUnreadable."""
    page = list_events_of_query(query, page_size=_LARGE_PAGE_SIZE)
    yield page.rows
    while page.older_key is not None:
        page = list_events_of_query(query, before=page.older_key, page_size=_LARGE_PAGE_SIZE)
        yield page.rows


def find_oldest_unarchived_time() -> datetime | None:
    """Return the time of the oldest event in the table if older ones are only in archives; None if none was removed.

    Raises: AuditUnavailable, RowUnreadable.
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
    """Return a page of checkpoints by one query: the newest ones, or those adjacent to a tree size.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    _validate_single_bound(before, after)
    rows = AuditCheckpoint.objects.order_by("-tree_size" if after is None else "tree_size")
    bounds = {"tree_size__lt": before, "tree_size__gt": after}
    rows = rows.filter(**{name: value for name, value in bounds.items() if value is not None})
    return _build_page(rows[: page_size + 1], lambda row: row.tree_size, before, after, page_size)


def find_event(event_id: uuid.UUID) -> AuditEvent | None:
    """Return the event with that id, if any. The MAC is NOT checked. Raises: AuditUnavailable, RowUnreadable."""
    with _translate_row_errors():
        return AuditEvent.objects.filter(id=event_id).first()


def find_checkpoint(tree_size: int) -> AuditCheckpoint | None:
    """Return the checkpoint with that size, if any. The signature is NOT checked. Raises: as `find_event`."""
    with _translate_row_errors():
        return AuditCheckpoint.objects.filter(tree_size=tree_size).first()


def get_log_position(event_id: uuid.UUID) -> LogPosition:
    """Return the position of the event in the log. Raises: AuditUnavailable, RowUnreadable."""
    with _translate_row_errors():
        leaf = AuditLeaf.objects.filter(event_id=event_id).first()
        if leaf is None:
            refused = AuditUnsealed.objects.filter(event_id=event_id, refused=True).exists()
            return LogPosition(leaf_index=None, tree_size=None, refused=refused)
        checkpoint = AuditCheckpoint.objects.filter(tree_size__gt=leaf.leaf_index).order_by("tree_size").first()
        return LogPosition(leaf_index=leaf.leaf_index, tree_size=checkpoint.tree_size if checkpoint else None)


def count_events(column: str, value: str, times: Sequence[datetime], *, max_count: int) -> list[int]:
    """Return how many events have the value between each time and the next one, at most max_count each, by one query.

    column: action, or outcome with a value other than success. Their indexes answer it without reading events.
    Requires: ascending times that event ids can have. Raises: AuditUnavailable.
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
        values = [part for place, pair in enumerate(pairwise(ids)) for part in (place, *pair)]
        cursor.execute(sql, [*values, value])
        return [count for (count,) in cursor.fetchall()]


def count_unsealed(*, max_count: int) -> int:
    """Return how many events wait to be sealed, at most max_count. Raises: AuditUnavailable."""
    with translate_database_errors():
        return AuditUnsealed.objects.all()[:max_count].count()


def find_last_verification() -> AuditEvent | None:
    """Return the newest `audit.verified` event with a valid MAC. Raises: AuditUnavailable, RowUnreadable."""
    rows = list_events(EventFilters(action=Action.AUDIT_VERIFIED), page_size=_MAX_CHECKED_EVENTS).rows
    try:
        return next((row for row in rows if has_valid_row_mac(row)), None)
    except KeyMissing as error:
        raise AuditUnavailable from error


def _find_id_range(filters: EventFilters, before: uuid.UUID | None, after: uuid.UUID | None) -> _IdRange | None:
    """Return the first and last id to search; None if there can be none. An id begins with its time."""
    _validate_single_bound(before, after)
    first = max(lowest_uuid7(filters.since).int if filters.since else 0, after.int + 1 if after is not None else 0)
    end = lowest_uuid7(filters.until).int if filters.until else 2**128
    last = min(end, before.int if before is not None else 2**128) - 1
    return (uuid.UUID(int=first), uuid.UUID(int=last)) if first <= last else None


def _validate_single_bound(before: object, after: object) -> None:
    if before is not None and after is not None:
        raise ValueError("A page begins before a row or after one, not both.")


def _build_query_parts(filters: EventFilters, id_range: _IdRange) -> list[_QueryPart]:
    """Return a query for each meaning of the search, with the order of the index that it uses."""
    exact = {name: getattr(filters, name) for name in ("subject", "actor", "action", "outcome")}
    values = {name: value for name, value in exact.items() if value}
    rows = AuditEvent.objects.filter(**values)
    if not filters.search:
        lead = next((name for name, value in values.items() if (name, value) != ("outcome", "success")), None)
        if lead is None:
            return [(rows.filter(id__range=id_range), ("id",))]
        rest = AuditEvent.objects.filter(**{name: value for name, value in values.items() if name != lead})
        return [_filter_by_index(lead, values[lead], rest, id_range)]
    try:
        id_ = uuid.UUID(filters.search)
    except ValueError:
        return [_filter_by_index("actor", filters.search, rows, id_range)]
    by_id = rows.filter(id=id_, id__range=id_range), ("id",)
    return [by_id, *(_filter_by_index(name, str(id_), rows, id_range) for name in ("session", "subject", "actor"))]


def _filter_by_index(name: str, value: str, rows: QuerySet[AuditEvent], id_range: _IdRange) -> _QueryPart:
    """Return the rows with the value in the id range, and the order of the index (name, id), which nothing else has.

    For `name = value ORDER BY id` PostgreSQL may scan the primary key instead, expecting to find the value soon. A user
    with many old events would then cost a scan of everything since. So both bounds are row values. The condition of the
    partial index is repeated, because SQLite would not use the index otherwise.
    """
    pair = _RowValue(F(name), F("id"))
    first, last = (_RowValue(Value(value), Value(bound, output_field=UUIDField())) for bound in id_range)
    bounds = GreaterThanOrEqual(pair, first), LessThanOrEqual(pair, last)
    return rows.filter(*bounds, **_PARTIAL_INDEX_CONDITIONS.get(name, {f"{name}__gt": ""})), (name, "id")


def _limit_rows(
    limit: int, rows: QuerySet[AuditEvent], order: tuple[str, ...], *, newest_first: bool
) -> QuerySet[AuditEvent]:
    return rows.order_by(*(f"{'-' if newest_first else ''}{name}" for name in order))[:limit]


class _RowValue(Func):
    """A row value: compared as a whole, the first expression first."""

    template = "(%(expressions)s)"
    output_field = TextField()


def _union_parts(parts: Iterable[QuerySet[AuditEvent]], *, newest_first: bool, limit: int) -> Iterable[AuditEvent]:
    """Return the distinct rows of all parts by one query. With OR, the database might choose to scan the table.

    Django does not support limits in the parts of a union on SQLite. As subqueries they work everywhere.
    """
    compiled = [part.query.get_compiler(AUDIT_ALIAS).as_sql() for part in parts]
    union = " UNION ".join(f"SELECT * FROM ({sql}) AS part" for sql, _ in compiled)  # noqa: S608 -- Django's own
    order = f"ORDER BY id {'DESC' if newest_first else 'ASC'} LIMIT {limit:d}"
    values = [value for _, parameters in compiled for value in parameters]
    return AuditEvent.objects.using(AUDIT_ALIAS).raw(f"{union} {order}", values)


def _fetch_event_page(
    parts: Sequence[_QueryPart], before: uuid.UUID | None, after: uuid.UUID | None, page_size: int
) -> KeysetPage[AuditEvent, uuid.UUID]:
    newest_first, limit = after is None, page_size + 1
    querysets = [_limit_rows(limit, *part, newest_first=newest_first) for part in parts]
    rows: dict[uuid.UUID, AuditEvent] = {}
    with _translate_row_errors():
        for start in range(0, len(querysets), _PARTS_PER_QUERY):
            batch = querysets[start : start + _PARTS_PER_QUERY]
            found = batch[0] if len(batch) == 1 else _union_parts(batch, newest_first=newest_first, limit=limit)
            rows |= {row.id: row for row in found}
    newest = sorted(rows.values(), key=lambda row: row.id, reverse=newest_first)[:limit]
    return _build_page(newest, lambda row: row.id, before, after, page_size)


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
        rows=tuple(rows), newer_key=key(rows[0]) if has_newer else None, older_key=key(rows[-1]) if has_older else None
    )


@contextmanager
def _translate_row_errors() -> Iterator[None]:
    with translate_database_errors():
        try:
            yield
        except UNLOADABLE_ROW_ERRORS as error:
            raise RowUnreadable("A row is not a valid event: run `audit verify`.") from error


def iterate_events(filters: EventFilters) -> Iterator[AuditEvent]:
    """Yield the matching events, oldest first. Raises: AuditUnavailable, RowUnreadable."""
    for rows in iterate_event_batches(filters):
        yield from rows


def iterate_event_batches(filters: EventFilters) -> Iterator[tuple[AuditEvent, ...]]:
    """Yield the events of `iterate_events` in batches of a thousand, to limit memory."""
    last = uuid.UUID(int=0)
    while rows := list_events(filters, after=last, page_size=_LARGE_PAGE_SIZE).rows:
        yield rows[::-1]
        last = rows[0].id


def has_more_events_than(filters: EventFilters, max_count: int) -> bool:
    """Whether more than max_count events match, counting no further.

    An event that matches two meanings of the search counts twice. Raises: AuditUnavailable.
    """
    id_range = _find_id_range(filters, None, None)
    parts = _build_query_parts(filters, id_range) if id_range else []
    with _translate_row_errors():
        return sum(_limit_rows(max_count + 1, *part, newest_first=True).count() for part in parts) > max_count
