"""Seal again, under the newest encryption key, what is sealed under an older one: every column, while the site writes.

No bookkeeping: a text names its key, so a run that was killed is gone on with by the next one, and two runs share the
work. What a writer changes meanwhile stays as the writer has it: a text is replaced only where it is still the one that
was opened. Texts under retention keys are left alone; those keys end by themselves.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from django.apps import apps
from django.db import connections, router, transaction
from django.db.models import QuerySet

from . import keyring
from .errors import Undecryptable
from .fields import SealedTextField
from .keyring import Key
from .statements import durably

BATCH = 2_000
"""Texts replaced in one transaction: its rows are locked for some 30 ms on PostgreSQL."""
PAUSES = (0.0, 0.05, 0.2, 0.5)
"""Seconds before each further try at rows that others held or changed."""
RING_ID = "^[0-9a-f]{8}:"
RETENTION_ID = "^([0-9]{8}-(session|[0-9]{1,10})|hold-[0-9a-f]{32}):gAAAA"
"""As `buckets` spells it: with a hyphen, as no id of a ring has it; then a Fernet token, which plain text is not."""
_RETENTION, _NAMELESS = "-", ""
_TEXT = "phi_oidc_sealed_text"
# No token of ours has it; what has it anyway, as base64 passes over it, is left alone.
_COMMA = ","


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed texts in one database."""

    using: str
    field: SealedTextField

    @property
    def table(self) -> str:
        """The name of its table."""
        return str(self.field.model._meta.db_table)

    def __str__(self) -> str:
        return f"{self.table}.{self.field.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """The texts of a column, counted by what they say of themselves; none is opened."""

    keys: dict[str, int] = field(default_factory=dict)
    """By key id."""
    retention: int = 0
    """Under retention keys."""
    nameless: int = 0
    """That name no key: nothing that was sealed here."""

    def left(self, newest: str) -> int:
        """Return how many a rotation to that key has to look at."""
        return sum(self.keys.values()) - self.keys.get(newest, 0) + self.nameless


@dataclass(slots=True, kw_only=True)
class Resealed:
    """What came of the texts of a column that were not under the newest key."""

    done: int = 0
    unopenable: int = 0
    """Left as they are: damaged, not ours, of a missing key, or moved there from elsewhere."""
    busy: int = 0
    """Held or changed by others at every try; the next run takes them."""


class _Change(NamedTuple):
    """One text to be replaced."""

    pk: Any
    old: str
    new: str


def sealed_columns(using: str = "") -> tuple[SealedColumn, ...]:
    """Return each column of sealed texts of each installed model once, the host project's too.

    using: the database whose tables are meant; empty: of each model the one that it is written to.
    """
    found: dict[tuple[str, str, str], SealedColumn] = {}
    for model in apps.get_models(include_auto_created=True):
        if using and not router.allow_migrate_model(using, model):
            continue
        alias = using or router.db_for_write(model)
        for each in model._meta.local_concrete_fields:
            if isinstance(each, SealedTextField):
                found.setdefault((alias, model._meta.db_table, each.column), SealedColumn(alias, each))
    return tuple(found.values())


def count(column: SealedColumn) -> Census:
    """Return how many texts of the column name which key, by one statement."""
    sql = _Statements(column)
    with connections[column.using].cursor() as cursor:
        cursor.execute(*sql.count())
        found = dict(cursor.fetchall())
    retention, nameless = found.pop(_RETENTION, 0), found.pop(_NAMELESS, 0)
    return Census(keys=dict(sorted(found.items())), retention=retention, nameless=nameless)


def reseal(
    column: SealedColumn,
    *,
    ring: Sequence[Key],
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda looked_at: None,
    unopenable: Callable[[str], None] = lambda key: None,
) -> Resealed:
    """Seal again what the column has under any but the first key of the ring; return what came of it.

    A text that can't be opened stays as it is, and unopenable is told the primary key of its row. Each batch is
    committed. progress: told after each how many texts were looked at. On PostgreSQL one batch is written while the
    next one is sealed, by a connection of its own; no row that somebody holds is waited for.
    Raises: RuntimeError inside a transaction.
    """
    if connections[column.using].in_atomic_block:
        raise RuntimeError("Sealing again commits batch by batch: not inside a transaction.")
    return _Run(column, ring, batch, unopenable).all(progress)


class _Run:
    """One pass over a column, by primary key."""

    def __init__(
        self, column: SealedColumn, ring: Sequence[Key], batch: int, unopenable: Callable[[str], None]
    ) -> None:
        self._using = column.using
        self._field = column.field
        self._ring = ring
        self._batch = batch
        self._tell = unopenable
        self._sql = _Statements(column)
        self._result = Resealed()

    def all(self, progress: Callable[[int], None]) -> Resealed:
        if connections[self._using].vendor == "postgresql":
            self._write_aside(progress)
        else:
            for changes, looked_at in self._batches():
                self._settle(changes, self._write(changes))
                progress(looked_at)
        return self._result

    def _write_aside(self, progress: Callable[[int], None]) -> None:
        """Seal a batch while the one before is written."""
        with ThreadPoolExecutor(max_workers=1) as aside:
            try:
                before: tuple[list[_Change], Future[int]] | None = None
                for changes, looked_at in self._batches():
                    if before:
                        self._settle(before[0], before[1].result())
                    before = changes, aside.submit(self._write, changes)
                    progress(looked_at)
                if before:
                    self._settle(before[0], before[1].result())
            finally:
                aside.submit(self._disconnect).result()

    def _disconnect(self) -> None:
        """Close the connection of the thread that calls."""
        connections[self._using].close()

    def _batches(self) -> Iterator[tuple[list[_Change], int]]:
        """Yield what is to be replaced, and how many texts have been looked at by then."""
        looked_at, rows = 0, self._read({})
        while rows:
            looked_at += len(rows)
            yield self._changes(rows, self._unopenable), looked_at
            rows = self._read({"pk__gt": rows[-1][0]})

    def _unopenable(self, pk: Any) -> None:
        self._result.unopenable += 1
        self._tell(str(pk))

    def _settle(self, changes: list[_Change], written: int) -> None:
        """Count what was written, and try the rest again: somebody held those rows, or changed or deleted them."""
        self._result.done += written
        for pause in PAUSES:
            if written == len(changes):
                return
            time.sleep(pause)
            rows = self._read({"pk__gte": changes[0].pk, "pk__lte": changes[-1].pk})
            changes = self._changes(rows, lambda pk: None)
            written = self._write(changes)
            self._result.done += written
        self._result.busy += len(changes) - written

    def _read(self, bounds: Mapping[str, Any]) -> list[Any]:
        """Return primary key, natural key and text of the first rows whose text is under an older key, or none."""
        # Not by a manager of the model's, which may leave rows out.
        rows: QuerySet[Any] = QuerySet(self._field.model, using=self._using).filter(**bounds).order_by("pk")
        condition, given = self._sql.is_to_be_sealed(self._ring[0].id)
        # The text beside its field, which would make an object of each.
        rows = rows.extra(select={_TEXT: self._sql.text}, where=[condition], params=given)  # noqa: S610 -- the model's names
        return list(rows.values_list("pk", *self._field.bind, _TEXT)[: self._batch])

    def _changes(self, rows: list[Any], unopenable: Callable[[Any], None]) -> list[_Change]:
        changes = []
        for pk, *natural_key, text in rows:
            try:
                if _COMMA in text:
                    raise Undecryptable
                context = self._field.context_of(natural_key)
                changes.append(_Change(pk, text, keyring.seal_again(text, context=context, ring=self._ring)))
            except (Undecryptable, TypeError):
                unopenable(pk)
        return changes

    def _write(self, changes: list[_Change]) -> int:
        """Replace, in one transaction, each text that still is the old one; return how many were."""
        if not changes:
            return 0
        connection: Any = connections[self._using]
        keys = self._sql.key_columns([each.pk for each in changes])
        if connection.vendor != "postgresql":
            given = [(each.new, *key, each.old) for *key, each in zip(*keys, changes, strict=True)]
            with transaction.atomic(using=self._using), connection.cursor() as cursor:
                cursor.executemany(self._sql.replace(), given)
                return int(cursor.rowcount)
        texts = [_COMMA.join([each.old for each in changes]), _COMMA.join([each.new for each in changes])]
        with durably(self._using), connection.wrap_database_errors:
            connection.ensure_connection()
            # Bound by the server: Django's cursor would write a megabyte of SQL, which the server would have to parse.
            with connection.Database.Cursor(connection.connection) as cursor:
                cursor.execute(self._sql.replace_many(), [*keys, *texts])
                return int(cursor.rowcount)


class _Statements:
    """The SQL of one column. Names come from the models, values are bound."""

    def __init__(self, column: SealedColumn) -> None:
        self._connection = connection = cast(Any, connections[column.using])
        quote = connection.ops.quote_name
        self._keys: list[Any] = list(column.field.model._meta.pk_fields)
        self._key = [quote(each.column) for each in self._keys]
        self._table = quote(column.table)
        self._text = quote(column.field.column)
        self.text = text = f"{self._table}.{self._text}"
        matches = connection.operators["regex"]
        # Of a text that names no key nothing is read: it may be anything.
        self._named = (
            f"CASE WHEN {text} {matches} THEN substr({text}, 1, 8)"
            f" WHEN {text} {matches} THEN '{_RETENTION}' WHEN {text} IS NOT NULL THEN '{_NAMELESS}' END"
        )

    def key_columns(self, pks: Sequence[Any]) -> list[list[Any]]:
        """Return a list for each column of the primary key: its values, for the database driver."""
        columns = zip(*pks, strict=True) if len(self._keys) > 1 else [pks]
        return [
            [each.get_db_prep_value(part, self._connection) for part in parts]
            for each, parts in zip(self._keys, columns, strict=True)
        ]

    def count(self) -> tuple[str, list[str]]:
        """Select how many texts name which key."""
        return (
            f"SELECT {self._named}, count(*) FROM {self._table} WHERE {self._text} IS NOT NULL GROUP BY 1",  # noqa: S608 -- the model's names, here and below
            [RING_ID, RETENTION_ID],
        )

    def is_to_be_sealed(self, newest: str) -> tuple[str, list[str]]:
        """Return the condition of a text that is neither under the newest key nor under a retention key."""
        return f"{self._named} NOT IN (%s, '{_RETENTION}')", [RING_ID, RETENTION_ID, newest]

    def replace(self) -> str:
        """Replace one text where it still is the old one: new, primary key, old."""
        key = " AND ".join(f"{each} = %s" for each in self._key)
        return f"UPDATE {self._table} SET {self._text} = %s WHERE {key} AND {self._text} = %s"  # noqa: S608

    def replace_many(self) -> str:
        """Replace many, on PostgreSQL: a list for each column of the primary key, then old and new, joined by commas.

        What somebody holds is skipped: who never waits while holding rows is part of no deadlock.
        """
        names = [f"k{number}" for number in range(len(self._key))]
        arrays = ", ".join(f"%s::{each.db_type(self._connection)}[]" for each in self._keys)
        by = " AND ".join(f"b.{name} = t.{key}" for name, key in zip(names, self._key, strict=True))
        return f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest({arrays}, string_to_array(%s, ','), string_to_array(%s, ','))
                AS given({", ".join(names)}, old, new)
            ), held AS MATERIALIZED (
                SELECT b.* FROM given AS b JOIN {self._table} AS t ON {by} AND t.{self._text} = b.old
                FOR NO KEY UPDATE OF t SKIP LOCKED
            )
            UPDATE {self._table} AS t SET {self._text} = b.new FROM held AS b WHERE {by} AND t.{self._text} = b.old
        """  # noqa: S608
