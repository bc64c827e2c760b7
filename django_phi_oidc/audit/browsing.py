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

from ..entropy import first_uuid7
from ..errors import AuditUnavailable, KeyMissing
from .events import Action
from .models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditUnsealed
from .routing import AUDIT_ALIAS
from .writing import UNLOADABLE, is_genuine, reaching_the_trail

SIZE = 100
_LOOKED_AT = 20
_TOGETHER = 100
"""Parts of one query: SQLite unites 500 at most."""
_PARTIAL = {"action": {}, "outcome": {"outcome__lt": "success"}}
"""What their indexes leave out; those of the other columns leave the empty value out."""
_HIGHEST = 2**128 - 1
_Span = tuple[uuid.UUID, uuid.UUID]
Row = TypeVar("Row")
Key = TypeVar("Key", uuid.UUID, int)


class RowUnreadable(LookupError):
    """A row among those asked for was altered to what can't be an event: `audit verify` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
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

    def used(self) -> tuple[str, ...]:
        """Return the names of the filters that are not empty."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Events that tell of success, of one of these actions, about one of these subjects or resources."""

    actions: Collection[str]
    subjects: Collection[str] = ()
    resources: Collection[str] = ()
    """As the trail has them: a pseudonym where ids are keyed."""
    since: datetime | None = None
    unless_actor: str = ""
    """Whose own acts are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row, Key]):
    """Rows, newest first. newer, older: the key to ask for as after, as before; None where there is nothing."""

    rows: tuple[Row, ...] = ()
    newer: Key | None = None
    older: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an event is in the log: its leaf, and the first checkpoint over it; or why it has none."""

    leaf_index: int | None
    tree_size: int | None
    refused: bool = False
    """The sealer found that its MAC does not fit."""


def page(
    filters: Filters, *, before: uuid.UUID | None = None, after: uuid.UUID | None = None, size: int = SIZE
) -> Page[AuditEvent, uuid.UUID]:
    """Return up to size events: the newest, or those next before an id, or next after one; by one query.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    span = _span(filters, before, after)
    if span is None:
        return Page()
    parts = [_first(size + 1, *part, newest_first=after is None) for part in _asked(filters, span)]
    rows = parts[0] if len(parts) == 1 else _united(parts, newest_first=after is None, limit=size + 1)
    return _cut(rows, lambda row: row.id, before, after, size)


def page_about(
    about: About, *, before: uuid.UUID | None = None, after: uuid.UUID | None = None, size: int = SIZE
) -> Page[AuditEvent, uuid.UUID]:
    """Return up to size events, as `page` does; by one query for a hundred subjects and resources.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    span = _span(Filters(since=about.since), before, after)
    if span is None:
        return Page()
    told = AuditEvent.objects.filter(action__in=about.actions, outcome="success")
    if about.unless_actor:
        told = told.exclude(actor=about.unless_actor)
    values = [("subject", each) for each in about.subjects] + [("resource", each) for each in about.resources]
    parts = [_first(size + 1, *_along(*value, told, span), newest_first=after is None) for value in values]
    found: dict[uuid.UUID, AuditEvent] = {}
    with _loading():
        for start in range(0, len(parts), _TOGETHER):
            together = _united(parts[start : start + _TOGETHER], newest_first=after is None, limit=size + 1)
            found |= {row.id: row for row in together}
    rows = sorted(found.values(), key=lambda row: row.id, reverse=after is None)[: size + 1]
    return _cut(rows, lambda row: row.id, before, after, size)


def begins_at() -> datetime | None:
    """Return when the events in the table begin where those before them were taken out of it; None: all are there.

    They lie in archives, from the log's first leaf on. Raises: AuditUnavailable, RowUnreadable.
    """
    with _loading():
        first = AuditLeaf.objects.filter(leaf_index=0).first()
        if first is None or AuditEvent.objects.filter(id=first.event_id).exists():
            return None
        oldest = AuditEvent.objects.order_by("id").first()
        return oldest.occurred_at if oldest else None


def page_of_checkpoints(
    *, before: int | None = None, after: int | None = None, size: int = SIZE
) -> Page[AuditCheckpoint, int]:
    """Return up to size checkpoints: the newest, or those next before a tree size, or next after one; by one query.

    Requires: not both before and after. Raises: AuditUnavailable, RowUnreadable.
    """
    _refuse_both(before, after)
    rows = AuditCheckpoint.objects.order_by("-tree_size" if after is None else "tree_size")
    if before is not None:
        rows = rows.filter(tree_size__lt=before)
    if after is not None:
        rows = rows.filter(tree_size__gt=after)
    rows = rows[: size + 1]
    return _cut(rows, lambda row: row.tree_size, before, after, size)


def event(event_id: uuid.UUID) -> AuditEvent | None:
    """Return the event of that id; its MAC is NOT checked. Raises: AuditUnavailable, RowUnreadable."""
    with _loading():
        return AuditEvent.objects.filter(id=event_id).first()


def checkpoint(tree_size: int) -> AuditCheckpoint | None:
    """Return the checkpoint of that size; its signature is NOT checked. Raises: AuditUnavailable, RowUnreadable."""
    with _loading():
        return AuditCheckpoint.objects.filter(tree_size=tree_size).first()


def place(event_id: uuid.UUID) -> Place:
    """Return where that event is in the log. Raises: AuditUnavailable, RowUnreadable."""
    with _loading():
        leaf = AuditLeaf.objects.filter(event_id=event_id).first()
        if leaf is None:
            refused = AuditUnsealed.objects.filter(event_id=event_id, refused=True).exists()
            return Place(leaf_index=None, tree_size=None, refused=refused)
        over = AuditCheckpoint.objects.filter(tree_size__gt=leaf.leaf_index).order_by("tree_size").first()
        return Place(leaf_index=leaf.leaf_index, tree_size=over.tree_size if over else None)


def counts(column: str, value: str, times: Sequence[datetime], *, most: int) -> list[int]:
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
            WHERE {column} = %s {own} AND id >= begins AND id < ends LIMIT {most:d}
        ) AS part) FROM span ORDER BY place
    """  # noqa: S608 -- one of two names, and a number
    with reaching_the_trail(), connections[AUDIT_ALIAS].cursor() as cursor:
        adapt = AuditEvent._meta.pk.get_db_prep_value
        ids = [adapt(first_uuid7(time), cursor.db) for time in times]
        given = [part for place, pair in enumerate(pairwise(ids)) for part in (place, *pair)]
        cursor.execute(sql, [*given, value])
        return [count for (count,) in cursor.fetchall()]


def unsealed(*, most: int) -> int:
    """Return how many events wait to be sealed, most at most. Raises: AuditUnavailable."""
    with reaching_the_trail():
        return AuditUnsealed.objects.all()[:most].count()


def last_verification() -> AuditEvent | None:
    """Return the newest event that tells of a verification, and that its MAC fits.

    Raises: AuditUnavailable, RowUnreadable.
    """
    rows = page(Filters(action=Action.AUDIT_VERIFIED), size=_LOOKED_AT).rows
    try:
        return next((row for row in rows if is_genuine(row)), None)
    except KeyMissing as error:
        raise AuditUnavailable from error


def _span(filters: Filters, before: uuid.UUID | None, after: uuid.UUID | None) -> _Span | None:
    """Return the first and the last id that are asked for; None where there can be none. An id begins with its time."""
    _refuse_both(before, after)
    first = max(
        0,
        first_uuid7(filters.since).int if filters.since else 0,
        after.int + 1 if after is not None else 0,
    )
    last = min(
        _HIGHEST,
        first_uuid7(filters.until).int - 1 if filters.until else _HIGHEST,
        before.int - 1 if before is not None else _HIGHEST,
    )
    return (uuid.UUID(int=first), uuid.UUID(int=last)) if first <= last else None


def _refuse_both(before: object, after: object) -> None:
    if before is not None and after is not None:
        raise ValueError("A page lies before a row or after one.")


def _asked(filters: Filters, span: _Span) -> list[tuple[QuerySet[AuditEvent], tuple[str, ...]]]:
    """Return what is asked for, in as many parts as the search has meanings, each with its order by one index."""
    exact = {name: getattr(filters, name) for name in ("subject", "actor", "action", "outcome")}
    given = {name: value for name, value in exact.items() if value}
    rows = AuditEvent.objects.filter(**given)
    if not filters.search:
        lead = next((name for name, value in given.items() if (name, value) != ("outcome", "success")), None)
        rest = AuditEvent.objects.filter(**{name: value for name, value in given.items() if name != lead})
        return [_along(lead, given[lead], rest, span)] if lead else [(rows.filter(id__range=span), ("id",))]
    try:
        id_ = uuid.UUID(filters.search)
    except ValueError:
        return [_along("actor", filters.search, rows, span)]
    itself = rows.filter(id=id_, id__range=span), ("id",)
    return [itself, *(_along(name, str(id_), rows, span) for name in ("session", "subject", "actor"))]


def _along(
    name: str, value: str, rows: QuerySet[AuditEvent], span: _Span
) -> tuple[QuerySet[AuditEvent], tuple[str, ...]]:
    """Return the rows in span with that value, and the order of the index (name, id), which nothing else has.

    With `name = value ORDER BY id` PostgreSQL may go down the key of the whole trail instead, hoping to meet the value
    soon: somebody who did much, long ago, would cost a look at everything since. So both ends are pairs. The index
    leaves some values out, and SQLite must be told that they are not asked for.
    """
    pair = _Pair(F(name), F("id"))
    first, last = (_Pair(Value(value), Value(end, output_field=UUIDField())) for end in span)
    within = GreaterThanOrEqual(pair, first), LessThanOrEqual(pair, last)
    return rows.filter(*within, **_PARTIAL.get(name, {f"{name}__gt": ""})), (name, "id")


def _first(
    count: int, part: QuerySet[AuditEvent], order: tuple[str, ...], *, newest_first: bool
) -> QuerySet[AuditEvent]:
    """Return so many rows of part, in the order of its index."""
    return part.order_by(*(f"{'-' if newest_first else ''}{name}" for name in order))[:count]


class _Pair(Func):
    """Two values that are compared as one, the first one first."""

    template = "(%(expressions)s)"
    output_field = TextField()


def _united(parts: Iterable[QuerySet[AuditEvent]], *, newest_first: bool, limit: int) -> Iterable[AuditEvent]:
    """Return the rows of all parts, each once, by one query. An OR would let the database choose to read the trail.

    Django puts no limit on the parts of a union on SQLite; in a subquery they have it everywhere.
    """
    compiled = [part.query.get_compiler(AUDIT_ALIAS).as_sql() for part in parts]
    union = " UNION ".join(f"SELECT * FROM ({sql}) AS part" for sql, _ in compiled)  # noqa: S608 -- Django's own
    order = f"ORDER BY id {'DESC' if newest_first else 'ASC'} LIMIT {limit:d}"
    values = [value for _, given in compiled for value in given]
    return AuditEvent.objects.using(AUDIT_ALIAS).raw(f"{union} {order}", values)


def _cut(
    found: Iterable[Row], key: Callable[[Row], Key], before: Key | None, after: Key | None, size: int
) -> Page[Row, Key]:
    with _loading():
        rows = list(found)
    more, rows = len(rows) > size, rows[:size]
    if not rows:
        return Page()
    if after is not None:
        rows.reverse()
    has_newer, has_older = (more, True) if after is not None else (before is not None, more)
    return Page(
        rows=tuple(rows),
        newer=key(rows[0]) if has_newer else None,
        older=key(rows[-1]) if has_older else None,
    )


@contextmanager
def _loading() -> Iterator[None]:
    with reaching_the_trail():
        try:
            yield
        except UNLOADABLE as error:
            raise RowUnreadable("A row can be no event: `audit verify` names it.") from error


def each(filters: Filters) -> Iterator[AuditEvent]:
    """Yield every event that the filters let through, the oldest first. Raises: AuditUnavailable, RowUnreadable."""
    for rows in stretches(filters):
        yield from rows


def stretches(filters: Filters) -> Iterator[tuple[AuditEvent, ...]]:
    """Yield what `each` does, a thousand at a time: only those are held in memory."""
    last = uuid.UUID(int=0)
    while rows := page(filters, after=last, size=1000).rows:
        yield rows[::-1]
        last = rows[0].id


def is_beyond(filters: Filters, most: int) -> bool:
    """Say whether the filters let more than most events through; none beyond that are counted.

    An event that is found by two meanings of the search counts twice. Raises: AuditUnavailable.
    """
    span = _span(filters, None, None)
    parts = _asked(filters, span) if span else []
    with _loading():
        return sum(_first(most + 1, *part, newest_first=True).count() for part in parts) > most
