"""List events and checkpoints in pages, newest first, by index and keyset, without counting rows or
OFFSET.

A late page costs as much as the first one, and new events do not shift pages: a page begins next to
a row.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.db import connections
from django.db.models import F, Func, Q, QuerySet, TextField, UUIDField, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThanOrEqual

from .._internal.randomness import lowest_uuid7
from ..errors import AuditUnavailable, KeyMissing
from .actions import SHOWN_REFUSAL_ACTIONS
from .events import Action
from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditUnsealed, match_text_end
from .router import AUDIT_ALIAS
from .storage import UNLOADABLE_ROW_ERRORS, has_valid_row_mac, translate_database_errors

PAGE_SIZE = 100
MAX_SCANNED_EVENTS = 5_000
"""Events that `scan_events` checks for one page: a filter without an index then takes a bounded
time.
"""
_LARGE_PAGE_SIZE = 1_000
_MAX_CHECKED_EVENTS = 20
_PARTS_PER_QUERY = 100
"""Subqueries per query: SQLite allows 500 terms in a compound SELECT."""
_PARTIAL_INDEX_CONDITIONS: Mapping[str, dict[str, str]] = {
    "action": {},
    "outcome": {"outcome__lt": "success"},
}
"""The conditions of these indexes. The other ones exclude the empty text."""
_COLUMNS_INDEXED_BY_END = ("subject", "session")
_IdRange = tuple[uuid.UUID, uuid.UUID]
_Order = tuple[F | Func, ...]
_QueryPart = tuple[QuerySet[AuditEvent], _Order]
"""Rows, and the order of the index that finds them."""
_Conditions = dict[str, tuple[str, ...]]
"""Columns, and the values of which they must have one."""
_ROUTINE_CONDITION = "((action = %s AND actor = %s) OR (action = %s AND outcome = 'success'))"
Row = TypeVar("Row")
Key = TypeVar("Key", uuid.UUID, int)


class RowUnreadable(LookupError):
    """A row was altered so that it is no event any more: `audit verify` reports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilters:
    """Conditions that an event must meet; empty ones are ignored."""

    action: str = ""
    """One action, or several, separated by commas."""
    outcome: str = ""
    actor: str = ""
    on_behalf_of: str = ""
    subject: str = ""
    purpose: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    search: str = ""
    """A UUID of an event, a session, a subject or an actor; any other text is an actor."""
    person: str = ""
    """The ids of a person, separated by commas: the primary key of the account, then the UUIDs of
    its subjects. The person is the actor or the subject. Not together with `search`.
    """

    def list_used_names(self) -> tuple[str, ...]:
        """Return the names of the non-empty filters."""
        used_names = []
        for field in fields(self):
            if getattr(self, field.name):
                used_names.append(field.name)
        return tuple(used_names)

    def list_subjects(self) -> tuple[str, ...]:
        """Return the subjects that the filters name."""
        subjects = dict.fromkeys([self.subject, *split_list(self.person)[1:]])
        subjects.pop("", None)
        return tuple(subjects)


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
    """Rows, newest first. newer_key, older_key: the `after` and `before` of the adjacent pages;
    None without such.
    """

    rows: tuple[Row, ...] = ()
    newer_key: Key | None = None
    older_key: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedPage:
    """A page of events from a scan of limited length."""

    page: KeysetPage[AuditEvent, uuid.UUID] = KeysetPage()
    hidden_count: int = 0
    """Routine events between the first and the last event of the page that are not in it."""
    end: uuid.UUID | None = None
    """The last id that was checked, if the scan ended before the page was full; None: there are no
    more matches.
    """


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
    id_range = find_id_range(filters, before, after)
    if id_range is None:
        return KeysetPage()
    return _fetch_event_page(_build_query_parts(filters, id_range), before, after, page_size)


def scan_events(
    filters: EventFilters,
    *,
    viewer: str | None = None,
    before: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    page_size: int = PAGE_SIZE,
    max_scanned: int = MAX_SCANNED_EVENTS,
) -> ScannedPage:
    """Return a page of events by at most two queries, which check at most max_scanned events that
    an index finds.

    A page with few matches may end early; the next one begins where the scan ended. viewer: leave
    out routine events, which are views of the audit log by this actor, and successful revocations
    of tokens.
    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    id_range = find_id_range(filters, before, after)
    newest_first = after is None
    if id_range is None:
        return ScannedPage()

    if viewer is not None:
        routine = [Action.AUDIT_VIEWED.value, viewer, Action.TOKEN_REVOKED.value]
    else:
        routine = []

    parts, conditions = _plan_query(filters, id_range)
    where, values = _compile_conditions(conditions)
    limit = page_size + 1
    if conditions or routine:
        limit = max(limit, max_scanned // len(parts))
    window, window_values = _compile_window(parts, limit, newest_first=newest_first)

    if routine:
        shown = f"{where} AND NOT {_ROUTINE_CONDITION}"
    else:
        shown = where

    order = _get_sql_direction(newest_first=newest_first)
    statement = (
        f"SELECT * FROM ({window}) AS scanned WHERE {shown} "  # noqa: S608
        f"ORDER BY id {order} LIMIT {page_size + 1:d}"
    )
    with _translate_row_errors():
        rows = list(
            AuditEvent.objects.using(AUDIT_ALIAS).raw(
                statement, [*window_values, *values, *routine]
            )
        )
    page = _build_page(rows, lambda row: row.id, before, after, page_size)
    is_full = len(rows) > page_size
    if is_full and not routine:
        return ScannedPage(page=page)
    if is_full:
        # Count only up to the last event of the page.
        last = rows[page_size - 1].id
        if newest_first:
            page_range = (last, id_range[1])
        else:
            page_range = (id_range[0], last)

        parts, _ = _plan_query(filters, page_range)
        window, window_values = _compile_window(parts, limit, newest_first=newest_first)

    if routine:
        hidden = f"{where} AND {_ROUTINE_CONDITION}"
        parameters = [*values, *routine, *window_values]
    else:
        hidden = "1 = 0"
        parameters = window_values

    count, hidden_count, end = _summarize_window(
        window, hidden, parameters, newest_first=newest_first
    )
    if is_full or count < limit:
        return ScannedPage(page=page, hidden_count=hidden_count)

    if newest_first:
        page = replace(page, older_key=end)
    else:
        page = replace(page, newer_key=end)

    return ScannedPage(page=page, hidden_count=hidden_count, end=end)


def list_events_of_query(
    query: EventQuery,
    *,
    before: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    page_size: int = PAGE_SIZE,
) -> KeysetPage[AuditEvent, uuid.UUID]:
    """Return a page of events as `list_events` does, by one query per hundred subjects and
    resources.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    id_range = find_id_range(EventFilters(since=query.since), before, after)
    if id_range is None:
        return KeysetPage()
    events = AuditEvent.objects.filter(action__in=query.actions, outcome="success")
    if query.excluded_actor:
        events = events.exclude(actor=query.excluded_actor)
    if query.purposes:
        events = events.filter(purpose__in=query.purposes)
    if query.excluded_purposes:
        events = events.exclude(purpose__in=query.excluded_purposes)
    parts = []
    for subject in query.subjects:
        parts.append(_filter_by_index("subject", subject, id_range, events))
    for resource in query.resources:
        parts.append(_filter_by_index("resource", resource, id_range, events))
    return _fetch_event_page(parts, before, after, page_size)


def iterate_event_pages_of_query(query: EventQuery) -> Iterator[tuple[AuditEvent, ...]]:
    """Yield all events of the query, newest first, in pages of a thousand. Raises:
    AuditUnavailable, RowUnreadable.
    """
    page = list_events_of_query(query, page_size=_LARGE_PAGE_SIZE)
    yield page.rows
    while page.older_key is not None:
        page = list_events_of_query(query, before=page.older_key, page_size=_LARGE_PAGE_SIZE)
        yield page.rows


def find_oldest_unarchived_time() -> datetime | None:
    """Return the time of the oldest event in the table if older ones are only in archives; None if
    none was removed.

    Raises: AuditUnavailable, RowUnreadable.
    """
    with _translate_row_errors():
        first = AuditLeaf.objects.filter(leaf_index=0).first()
        is_complete = first is not None and AuditEvent.objects.filter(id=first.event_id).exists()
        if is_complete or not AuditCheckpoint.objects.exists():
            return None
        oldest: AuditEvent | None = AuditEvent.objects.order_by("id").first()
        if oldest is None:
            return None
        return oldest.occurred_at


def list_checkpoints(
    *, before: int | None = None, after: int | None = None, page_size: int = PAGE_SIZE
) -> KeysetPage[AuditCheckpoint, int]:
    """Return a page of checkpoints by one query: the newest ones, or those adjacent to a tree size.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    _validate_single_bound(before, after)
    if after is None:
        rows = AuditCheckpoint.objects.order_by("-tree_size")
    else:
        rows = AuditCheckpoint.objects.order_by("tree_size").filter(tree_size__gt=after)

    if before is not None:
        rows = rows.filter(tree_size__lt=before)
    return _build_page(rows[: page_size + 1], lambda row: row.tree_size, before, after, page_size)


def find_event(event_id: uuid.UUID) -> AuditEvent | None:
    """Return the event with that id, if any. The MAC is NOT checked. Raises: AuditUnavailable,
    RowUnreadable.
    """
    with _translate_row_errors():
        return AuditEvent.objects.filter(id=event_id).first()


def list_refusals(first: uuid.UUID, last: uuid.UUID) -> list[AuditEvent]:
    """Return the events of refusals that users see, with ids from first to last, at most
    `_MAX_CHECKED_EVENTS` read.

    The MACs are NOT checked. Raises: AuditUnavailable, RowUnreadable.
    """
    with _translate_row_errors():
        rows = list(
            AuditEvent.objects.filter(id__range=(first, last)).order_by("id")[:_MAX_CHECKED_EVENTS]
        )
    refusals = []
    for row in rows:
        if row.action in SHOWN_REFUSAL_ACTIONS:
            refusals.append(row)
    return refusals


def find_checkpoint(tree_size: int) -> AuditCheckpoint | None:
    """Return the checkpoint with that size, if any. The signature is NOT checked. Raises: as
    `find_event`.
    """
    with _translate_row_errors():
        return AuditCheckpoint.objects.filter(tree_size=tree_size).first()


def get_log_position(event_id: uuid.UUID) -> LogPosition:
    """Return the position of the event in the log. Raises: AuditUnavailable, RowUnreadable."""
    with _translate_row_errors():
        leaf = AuditLeaf.objects.filter(event_id=event_id).first()
        if leaf is None:
            refused = AuditUnsealed.objects.filter(event_id=event_id, refused=True).exists()
            return LogPosition(leaf_index=None, tree_size=None, refused=refused)
        checkpoint = (
            AuditCheckpoint.objects.filter(tree_size__gt=leaf.leaf_index)
            .order_by("tree_size")
            .first()
        )
        tree_size = None
        if checkpoint:
            tree_size = checkpoint.tree_size
        return LogPosition(leaf_index=leaf.leaf_index, tree_size=tree_size)


def find_oldest_event_id() -> uuid.UUID | None:
    """Return the lowest id of an event in the table, which begins with its time. Raises:
    AuditUnavailable.
    """
    with translate_database_errors():
        return AuditEvent.objects.order_by("id").values_list("id", flat=True).first()


def count_unsealed(*, max_count: int) -> int:
    """Return how many events wait to be sealed, at most max_count. Raises: AuditUnavailable."""
    with translate_database_errors():
        return AuditUnsealed.objects.all()[:max_count].count()


def find_last_verification() -> AuditEvent | None:
    """Return the newest `audit.verified` event with a valid MAC. Raises: AuditUnavailable,
    RowUnreadable.
    """
    rows = list_events(
        EventFilters(action=Action.AUDIT_VERIFIED), page_size=_MAX_CHECKED_EVENTS
    ).rows
    try:
        for row in rows:
            if has_valid_row_mac(row):
                return row
    except KeyMissing as error:
        raise AuditUnavailable from error
    return None


def find_id_range(
    filters: EventFilters, before: uuid.UUID | None, after: uuid.UUID | None
) -> _IdRange | None:
    """Return the first and last id that a page may have; None if there can be none. An id begins
    with its time.
    """
    _validate_single_bound(before, after)
    first = 0
    if filters.since:
        first = lowest_uuid7(filters.since).int
    if after is not None:
        first = max(first, after.int + 1)

    end = 2**128
    if filters.until:
        end = lowest_uuid7(filters.until).int
    if before is not None:
        end = min(end, before.int)

    last = end - 1
    if first <= last:
        return (uuid.UUID(int=first), uuid.UUID(int=last))
    return None


def _validate_single_bound(before: object, after: object) -> None:
    if before is not None and after is not None:
        raise ValueError("A page begins before a row or after one, not both.")


def _build_query_parts(filters: EventFilters, id_range: _IdRange) -> list[_QueryPart]:
    """Return a query for each meaning of the search, with the order of the index that it uses."""
    parts, conditions = _plan_query(filters, id_range)
    # Not written out: the plan leaves the conditions that no index has met.
    rest = {}
    for name, values in conditions.items():
        rest[f"{name}__in"] = values
    query_parts = []
    for rows, order in parts:
        query_parts.append((rows.filter(**rest), order))
    return query_parts


def _plan_query(filters: EventFilters, id_range: _IdRange) -> tuple[list[_QueryPart], _Conditions]:
    """Return the rows that an index finds, in parts, and the conditions that they must also
    meet.
    """
    values: _Conditions = {}
    for name in ("subject", "on_behalf_of", "actor", "outcome", "purpose"):
        value = getattr(filters, name)
        if value:
            values[name] = (value,)
    if actions := split_list(filters.action):
        values["action"] = actions
    if filters.search and filters.person:
        raise ValueError("The filters are a search or a person, not both.")
    if filters.person:
        account, *subjects = split_list(filters.person)
        person_parts = [_filter_by_index("actor", account, id_range)]
        for subject in subjects:
            person_parts.append(_filter_by_index("subject", subject, id_range))
        return person_parts, values
    if filters.search:
        return _build_search_parts(filters.search, id_range), values
    lead = _find_leading_column(values)
    if lead is None:
        return [(AuditEvent.objects.filter(id__range=id_range), (F("id"),))], values
    lead_values = values.pop(lead)
    return [_filter_by_index(lead, value, id_range) for value in lead_values], values


def _find_leading_column(values: _Conditions) -> str | None:
    """Return the column whose index finds the rows; None for the primary key.

    The partial index of outcomes does not contain successful events.
    """
    for name in ("subject", "on_behalf_of", "actor", "action", "outcome"):
        is_success = name == "outcome" and values.get(name) == ("success",)
        if name in values and not is_success:
            return name
    return None


def _build_search_parts(term: str, id_range: _IdRange) -> list[_QueryPart]:
    try:
        id_ = uuid.UUID(term)
    except ValueError:
        return [_filter_by_index("actor", term, id_range)]
    by_id = AuditEvent.objects.filter(id=id_, id__range=id_range)
    parts: list[_QueryPart] = [(by_id, (F("id"),))]
    for name in ("session", "subject", "actor"):
        parts.append(_filter_by_index(name, str(id_), id_range))
    return parts


def split_list(text: str) -> tuple[str, ...]:
    """Return the non-empty parts of a list that is separated by commas."""
    parts = []
    for part in text.split(","):
        if part:
            parts.append(part)
    return tuple(parts)


def _filter_by_index(
    name: str, value: str, id_range: _IdRange, rows: QuerySet[AuditEvent] | None = None
) -> _QueryPart:
    """Return the rows with the value in the id range, and the order of the index that finds them,
    which no other has.

    For `name = value ORDER BY id` PostgreSQL may scan the primary key instead, expecting to find
    the value soon. A user with many old events would then cost a scan of everything since. So both
    bounds are row values. The condition of the partial index is repeated, because SQLite would not
    use the index otherwise.
    """
    if rows is None:
        rows = AuditEvent.objects.all()

    if name in _COLUMNS_INDEXED_BY_END:
        key, indexed, is_value = match_text_end(name, value)
    else:
        key = F(name)
        indexed = value
        is_value = Q()

    pair = _RowValue(key, F("id"))
    first_id, last_id = id_range
    first = _RowValue(Value(indexed), Value(first_id, output_field=UUIDField()))
    last = _RowValue(Value(indexed), Value(last_id, output_field=UUIDField()))
    rows = rows.filter(is_value, **_PARTIAL_INDEX_CONDITIONS.get(name, {f"{name}__gt": ""}))
    return rows.filter(GreaterThanOrEqual(pair, first), LessThanOrEqual(pair, last)), (key, F("id"))


def _limit_rows(
    limit: int, rows: QuerySet[AuditEvent], order: _Order, *, newest_first: bool
) -> QuerySet[AuditEvent]:
    ordering = []
    for key in order:
        if newest_first:
            ordering.append(key.desc())
        else:
            ordering.append(key.asc())
    return rows.order_by(*ordering)[:limit]


def _get_sql_direction(*, newest_first: bool) -> str:
    if newest_first:
        return "DESC"
    return "ASC"


class _RowValue(Func):
    """A row value: compared as a whole, the first expression first."""

    template = "(%(expressions)s)"
    output_field = TextField()


def _compile_window(
    parts: Sequence[_QueryPart], limit: int, *, newest_first: bool
) -> tuple[str, list[Any]]:
    """Return the SQL, and its parameters, of the first `limit` distinct rows of all parts.

    With OR, the database might choose to scan the table. Django does not support limits in the
    parts of a union on SQLite. As subqueries they work everywhere.
    """
    statements = []
    parameters: list[Any] = []
    for part in parts:
        rows = _limit_rows(limit, *part, newest_first=newest_first)
        sql, values = rows.query.get_compiler(AUDIT_ALIAS).as_sql()
        statements.append(sql)
        parameters.extend(values)
    if len(statements) == 1:
        return statements[0], parameters

    subqueries = []
    for sql in statements:
        subqueries.append(f"SELECT * FROM ({sql}) AS part")  # noqa: S608 -- Django's own
    direction = _get_sql_direction(newest_first=newest_first)
    statement = f"{' UNION '.join(subqueries)} ORDER BY id {direction} LIMIT {limit:d}"
    return statement, parameters


def _compile_conditions(conditions: _Conditions) -> tuple[str, list[str]]:
    texts = []
    parameters: list[str] = []
    for name, values in conditions.items():
        texts.append(f"{name} IN ({', '.join(['%s'] * len(values))})")
        parameters.extend(values)
    return " AND ".join(texts) or "1 = 1", parameters


def _summarize_window(
    window: str, hidden: str, parameters: Sequence[Any], *, newest_first: bool
) -> tuple[int, int, uuid.UUID | None]:
    """Return the number of rows of the window, how many of them the condition `hidden` meet, and
    the id at its end.
    """
    # The row at the end of the window comes first.
    direction = _get_sql_direction(newest_first=not newest_first)
    statement = f"""
        SELECT total, hidden, id FROM (
            SELECT id, COUNT(*) OVER () AS total, SUM(CASE WHEN {hidden} THEN 1 ELSE 0 END) OVER () AS hidden
            FROM ({window}) AS scanned
        ) AS counted ORDER BY id {direction} LIMIT 1
    """  # noqa: E501, S608
    with translate_database_errors(), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()

    if row:
        return (row[0], row[1], AuditEvent._meta.pk.to_python(row[2]))
    return (0, 0, None)


def _fetch_event_page(
    parts: Sequence[_QueryPart], before: uuid.UUID | None, after: uuid.UUID | None, page_size: int
) -> KeysetPage[AuditEvent, uuid.UUID]:
    newest_first = after is None
    limit = page_size + 1
    rows: dict[uuid.UUID, AuditEvent] = {}
    with _translate_row_errors():
        for start in range(0, len(parts), _PARTS_PER_QUERY):
            window = _compile_window(
                parts[start : start + _PARTS_PER_QUERY], limit, newest_first=newest_first
            )
            for row in AuditEvent.objects.using(AUDIT_ALIAS).raw(*window):
                rows[row.id] = row
    newest = sorted(rows.values(), key=lambda row: row.id, reverse=newest_first)[:limit]
    return _build_page(newest, lambda row: row.id, before, after, page_size)


def _build_page(
    fetched_rows: Iterable[Row],
    key: Callable[[Row], Key],
    before: Key | None,
    after: Key | None,
    page_size: int,
) -> KeysetPage[Row, Key]:
    with _translate_row_errors():
        rows = list(fetched_rows)
    more = len(rows) > page_size
    rows = rows[:page_size]
    if not rows:
        return KeysetPage()
    if after is not None:
        rows.reverse()

    if after is not None:
        has_newer = more
        has_older = True
    else:
        has_newer = before is not None
        has_older = more

    newer_key = None
    if has_newer:
        newer_key = key(rows[0])

    older_key = None
    if has_older:
        older_key = key(rows[-1])

    return KeysetPage(rows=tuple(rows), newer_key=newer_key, older_key=older_key)


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
    id_range = find_id_range(filters, None, None)
    if id_range:
        parts = _build_query_parts(filters, id_range)
    else:
        parts = []

    count = 0
    with _translate_row_errors():
        for part in parts:
            count += _limit_rows(max_count + 1, *part, newest_first=True).count()
    return count > max_count
