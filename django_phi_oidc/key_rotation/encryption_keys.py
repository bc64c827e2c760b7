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

from .._internal.sql import durable
from ..crypto import keyring
from ..crypto.keyring import SymmetricKey
from ..errors import Undecryptable
from ..fields import SealedTextField

BATCH_SIZE = 2_000
"""Texts replaced in one transaction: its rows are locked for some 30 ms on PostgreSQL."""
RETRY_PAUSES_SECONDS = (0.0, 0.05, 0.2, 0.5)
"""Seconds before each further try at rows that others held or changed."""
ENCRYPTION_KEY_PATTERN = "^[0-9a-f]{8}:"
RETENTION_KEY_PATTERN = "^([0-9]{8}-(session|[0-9]{1,10})|hold-[0-9a-f]{32}):gAAAA"
"""As `buckets` spells it: with a hyphen, as no id of a ring has it; then a Fernet token, which plain text is not."""
_RETENTION_GROUP, _UNRECOGNIZED_GROUP = "-", ""
_TEXT_ALIAS = "phi_oidc_sealed_text"
# No token of ours has it; what has it anyway, as base64 passes over it, is left alone.
_SEPARATOR = ","


@dataclass(frozen=True, slots=True)
class EncryptedColumn:
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
class KeyUsage:
    """The texts of a column, counted by what they say of themselves; none is opened."""

    counts_by_key_id: dict[str, int] = field(default_factory=dict)
    """By key id."""
    retention_count: int = 0
    """Under retention keys."""
    unrecognized_count: int = 0
    """That name no key: nothing that was sealed here."""

    def count_remaining(self, newest_key_id: str) -> int:
        """Return how many a rotation to that key has to look at."""
        return (
            sum(self.counts_by_key_id.values()) - self.counts_by_key_id.get(newest_key_id, 0) + self.unrecognized_count
        )


@dataclass(slots=True, kw_only=True)
class ReencryptionResult:
    """What came of the texts of a column that were not under the newest key."""

    reencrypted: int = 0
    undecryptable: int = 0
    """Left as they are: damaged, not ours, of a missing key, or moved there from elsewhere."""
    skipped: int = 0
    """Held or changed by others at every try; the next run takes them."""


class _Replacement(NamedTuple):
    """One text to be replaced."""

    pk: Any
    old_text: str
    new_text: str


def list_encrypted_columns(using: str = "") -> tuple[EncryptedColumn, ...]:
    """Return each column of sealed texts of each installed model once, the host project's too.

    using: the database whose tables are meant; empty: of each model the one that it is written to.
    """
    found: dict[tuple[str, str, str], EncryptedColumn] = {}
    for model in apps.get_models(include_auto_created=True):
        if using and not router.allow_migrate_model(using, model):
            continue
        alias = using or router.db_for_write(model)
        for each in model._meta.local_concrete_fields:
            if isinstance(each, SealedTextField):
                found.setdefault((alias, model._meta.db_table, each.column), EncryptedColumn(alias, each))
    return tuple(found.values())


def count_key_usage(column: EncryptedColumn) -> KeyUsage:
    """Return how many texts of the column name which key, by one statement."""
    sql = _ColumnSQL(column)
    with connections[column.using].cursor() as cursor:
        cursor.execute(*sql.count_sql())
        found = dict(cursor.fetchall())
    retention, nameless = found.pop(_RETENTION_GROUP, 0), found.pop(_UNRECOGNIZED_GROUP, 0)
    return KeyUsage(
        counts_by_key_id=dict(sorted(found.items())), retention_count=retention, unrecognized_count=nameless
    )


def reencrypt(
    column: EncryptedColumn,
    *,
    keys: Sequence[SymmetricKey],
    batch_size: int = BATCH_SIZE,
    report_progress: Callable[[int], None] = lambda looked_at: None,
    report_undecryptable: Callable[[str], None] = lambda key: None,
) -> ReencryptionResult:
    """Seal again what the column has under any but the first key of the ring; return what came of it.

    A text that can't be opened stays as it is, and unopenable is told the primary key of its row. Each batch is
    committed. progress: told after each how many texts were looked at. On PostgreSQL one batch is written while the
    next one is sealed, by a connection of its own; no row that somebody holds is waited for.
    Raises: RuntimeError inside a transaction.
    """
    if connections[column.using].in_atomic_block:
        raise RuntimeError("Sealing again commits batch by batch: not inside a transaction.")
    return _ReencryptionRun(column, keys, batch_size, report_undecryptable).run(report_progress)


class _ReencryptionRun:
    """One pass over a column, by primary key."""

    def __init__(
        self,
        column: EncryptedColumn,
        keys: Sequence[SymmetricKey],
        batch_size: int,
        report_undecryptable: Callable[[str], None],
    ) -> None:
        self._using = column.using
        self._field = column.field
        self._keys = keys
        self._batch_size = batch_size
        self._report_undecryptable = report_undecryptable
        self._sql = _ColumnSQL(column)
        self._result = ReencryptionResult()

    def run(self, report_progress: Callable[[int], None]) -> ReencryptionResult:
        if connections[self._using].vendor == "postgresql":
            self._run_with_parallel_writes(report_progress)
        else:
            for changes, looked_at in self._iter_batches():
                self._finish_batch(changes, self._write_changes(changes))
                report_progress(looked_at)
        return self._result

    def _run_with_parallel_writes(self, report_progress: Callable[[int], None]) -> None:
        """Seal a batch while the one before is written."""
        with ThreadPoolExecutor(max_workers=1) as aside:
            try:
                before: tuple[list[_Replacement], Future[int]] | None = None
                for changes, looked_at in self._iter_batches():
                    if before:
                        self._finish_batch(before[0], before[1].result())
                    before = changes, aside.submit(self._write_changes, changes)
                    report_progress(looked_at)
                if before:
                    self._finish_batch(before[0], before[1].result())
            finally:
                aside.submit(self._close_connection).result()

    def _close_connection(self) -> None:
        """Close the connection of the thread that calls."""
        connections[self._using].close()

    def _iter_batches(self) -> Iterator[tuple[list[_Replacement], int]]:
        """Yield what is to be replaced, and how many texts have been looked at by then."""
        looked_at, rows = 0, self._read_rows({})
        while rows:
            looked_at += len(rows)
            yield self._reencrypt_rows(rows, self._record_undecryptable), looked_at
            rows = self._read_rows({"pk__gt": rows[-1][0]})

    def _record_undecryptable(self, pk: Any) -> None:
        self._result.undecryptable += 1
        self._report_undecryptable(str(pk))

    def _finish_batch(self, changes: list[_Replacement], written: int) -> None:
        """Count what was written, and try the rest again: somebody held those rows, or changed or deleted them."""
        self._result.reencrypted += written
        for pause in RETRY_PAUSES_SECONDS:
            if written == len(changes):
                return
            time.sleep(pause)
            rows = self._read_rows({"pk__gte": changes[0].pk, "pk__lte": changes[-1].pk})
            changes = self._reencrypt_rows(rows, lambda pk: None)
            written = self._write_changes(changes)
            self._result.reencrypted += written
        self._result.skipped += len(changes) - written

    def _read_rows(self, bounds: Mapping[str, Any]) -> list[Any]:
        """Return primary key, natural key and text of the first rows whose text is under an older key, or none."""
        # Not by a manager of the model's, which may leave rows out.
        rows: QuerySet[Any] = QuerySet(self._field.model, using=self._using).filter(**bounds).order_by("pk")
        condition, given = self._sql.needs_reencryption_sql(self._keys[0].id)
        # The text beside its field, which would make an object of each.
        rows = rows.extra(select={_TEXT_ALIAS: self._sql.qualified_column}, where=[condition], params=given)  # noqa: S610 -- the model's names
        return list(rows.values_list("pk", *self._field.bind, _TEXT_ALIAS)[: self._batch_size])

    def _reencrypt_rows(self, rows: list[Any], on_undecryptable: Callable[[Any], None]) -> list[_Replacement]:
        changes = []
        for pk, *natural_key, text in rows:
            try:
                if _SEPARATOR in text:
                    raise Undecryptable
                context = self._field.get_encryption_context(natural_key)
                changes.append(_Replacement(pk, text, keyring.reencrypt_text(text, context=context, keys=self._keys)))
            except (Undecryptable, TypeError):
                on_undecryptable(pk)
        return changes

    def _write_changes(self, changes: list[_Replacement]) -> int:
        """Replace, in one transaction, each text that still is the old one; return how many were."""
        if not changes:
            return 0
        connection: Any = connections[self._using]
        keys = self._sql.prepare_pk_values([each.pk for each in changes])
        if connection.vendor != "postgresql":
            given = [(each.new, *key, each.old) for *key, each in zip(*keys, changes, strict=True)]
            with transaction.atomic(using=self._using), connection.cursor() as cursor:
                cursor.executemany(self._sql.replace_one_sql(), given)
                return int(cursor.rowcount)
        texts = [
            _SEPARATOR.join([each.old_text for each in changes]),
            _SEPARATOR.join([each.new_text for each in changes]),
        ]
        with durable(self._using), connection.wrap_database_errors:
            connection.ensure_connection()
            # Bound by the server: Django's cursor would write a megabyte of SQL, which the server would have to parse.
            with connection.Database.Cursor(connection.connection) as cursor:
                cursor.execute(self._sql.replace_many_sql(), [*keys, *texts])
                return int(cursor.rowcount)


class _ColumnSQL:
    """The SQL of one column. Names come from the models, values are bound."""

    def __init__(self, column: EncryptedColumn) -> None:
        self._connection = connection = cast(Any, connections[column.using])
        quote = connection.ops.quote_name
        self._pk_fields: list[Any] = list(column.field.model._meta.pk_fields)
        self._pk_columns = [quote(each.column) for each in self._pk_fields]
        self._table = quote(column.table)
        self._column = quote(column.field.column)
        self.qualified_column = text = f"{self._table}.{self._column}"
        matches = connection.operators["regex"]
        # Of a text that names no key nothing is read: it may be anything.
        self._key_id_sql = (
            f"CASE WHEN {text} {matches} THEN substr({text}, 1, 8)"
            f" WHEN {text} {matches} THEN '{_RETENTION_GROUP}' WHEN {text} IS NOT NULL THEN '{_UNRECOGNIZED_GROUP}' END"
        )

    def prepare_pk_values(self, pks: Sequence[Any]) -> list[list[Any]]:
        """Return a list for each column of the primary key: its values, for the database driver."""
        columns = zip(*pks, strict=True) if len(self._pk_fields) > 1 else [pks]
        return [
            [each.get_db_prep_value(part, self._connection) for part in parts]
            for each, parts in zip(self._pk_fields, columns, strict=True)
        ]

    def count_sql(self) -> tuple[str, list[str]]:
        """Select how many texts name which key."""
        return (
            f"SELECT {self._key_id_sql}, count(*) FROM {self._table} WHERE {self._column} IS NOT NULL GROUP BY 1",  # noqa: S608 -- the model's names, here and below
            [ENCRYPTION_KEY_PATTERN, RETENTION_KEY_PATTERN],
        )

    def needs_reencryption_sql(self, newest_key_id: str) -> tuple[str, list[str]]:
        """Return the condition of a text that is neither under the newest key nor under a retention key."""
        return f"{self._key_id_sql} NOT IN (%s, '{_RETENTION_GROUP}')", [
            ENCRYPTION_KEY_PATTERN,
            RETENTION_KEY_PATTERN,
            newest_key_id,
        ]

    def replace_one_sql(self) -> str:
        """Replace one text where it still is the old one: new, primary key, old."""
        key = " AND ".join(f"{each} = %s" for each in self._pk_columns)
        return f"UPDATE {self._table} SET {self._column} = %s WHERE {key} AND {self._column} = %s"  # noqa: S608

    def replace_many_sql(self) -> str:
        """Replace many, on PostgreSQL: a list for each column of the primary key, then old and new, joined by commas.

        What somebody holds is skipped: who never waits while holding rows is part of no deadlock.
        """
        names = [f"k{number}" for number in range(len(self._pk_columns))]
        arrays = ", ".join(f"%s::{each.db_type(self._connection)}[]" for each in self._pk_fields)
        by = " AND ".join(f"b.{name} = t.{key}" for name, key in zip(names, self._pk_columns, strict=True))
        return f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest({arrays}, string_to_array(%s, ','), string_to_array(%s, ','))
                AS given({", ".join(names)}, old, new)
            ), held AS MATERIALIZED (
                SELECT b.* FROM given AS b JOIN {self._table} AS t ON {by} AND t.{self._column} = b.old
                FOR NO KEY UPDATE OF t SKIP LOCKED
            )
            UPDATE {self._table} AS t SET {self._column} = b.new FROM held AS b WHERE {by} AND t.{self._column} = b.old
        """  # noqa: S608
