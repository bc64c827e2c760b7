"""Encrypt everything under older keys again with the newest encryption key, while the site is
running.

No progress is stored: a text names its key, so a later run continues a killed one, and concurrent
runs share the work. A text is replaced only if it is still the one that was read, so concurrent
changes are never overwritten. Texts under retention keys are left alone, because those keys are
destroyed at the end of the retention.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from django.apps import apps
from django.db import connections, router, transaction
from django.db.models import QuerySet

from ..._internal.sql import durable
from ...crypto import keyring
from ...crypto.claim_keys import NAMES_PATTERN
from ...crypto.keyring import SymmetricKey
from ...errors import Undecryptable
from ...fields import SealedTextField

BATCH_SIZE = 2_000
"""Texts replaced in one transaction, which locks its rows for about 30 ms on PostgreSQL."""
RETRY_PAUSES_SECONDS = (0.0, 0.05, 0.2, 0.5)
"""Before each further attempt at rows that others locked or changed."""
ENCRYPTION_KEY_PATTERN = "^[0-9a-f]{8}:"
RETENTION_KEY_PATTERN = f"^{NAMES_PATTERN}:gAAAA"
"""The names of retention keys, with a hyphen unlike a key id, and the start of a Fernet token."""
_RETENTION_GROUP = "-"
_UNRECOGNIZED_GROUP = ""
_TEXT_ALIAS = "phi_oidc_sealed_text"
# Not in our ciphertexts. A text that contains it anyway is left alone, although base64 decoding
# would ignore it.
_SEPARATOR = ","


@dataclass(frozen=True, slots=True)
class EncryptedColumn:
    """An encrypted column in one database."""

    using: str
    field: SealedTextField

    @property
    def table(self) -> str:
        return str(self.field.model._meta.db_table)

    def __str__(self) -> str:
        return f"{self.table}.{self.field.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUsage:
    """The texts of a column, counted by the key that they name. None is decrypted."""

    counts_by_key_id: dict[str, int] = field(default_factory=dict)
    retention_count: int = 0
    unrecognized_count: int = 0
    """They name no key, so they were not encrypted by this package."""

    def count_remaining(self, newest_key_id: str) -> int:
        """Return how many texts a rotation to that key has to process."""
        counts = self.counts_by_key_id
        return sum(counts.values()) - counts.get(newest_key_id, 0) + self.unrecognized_count


@dataclass(slots=True, kw_only=True)
class ReencryptionResult:
    """The counts of texts that were not under the newest key."""

    reencrypted: int = 0
    undecryptable: int = 0
    """Left unchanged: damaged, foreign, of an unknown key, or copied from elsewhere."""
    skipped: int = 0
    """Locked or changed by others at every attempt; the next run processes them."""


class _Replacement(NamedTuple):
    pk: Any
    old_text: str
    new_text: str


def list_encrypted_columns(using: str = "") -> tuple[EncryptedColumn, ...]:
    """Return each encrypted column of all installed models once, including the host project's
    models.

    using: a database alias; empty: for each model, the database that it is written to.
    """
    columns: dict[tuple[str, str, str], EncryptedColumn] = {}
    for model in apps.get_models(include_auto_created=True):
        if using and not router.allow_migrate_model(using, model):
            continue
        alias = using or router.db_for_write(model)
        for model_field in model._meta.local_concrete_fields:
            if isinstance(model_field, SealedTextField):
                key = (alias, model._meta.db_table, model_field.column)
                columns.setdefault(key, EncryptedColumn(alias, model_field))
    return tuple(columns.values())


def count_key_usage(column: EncryptedColumn) -> KeyUsage:
    """Return how many texts of the column name which key, with one statement."""
    sql = _ColumnSQL(column)
    with connections[column.using].cursor() as cursor:
        cursor.execute(*sql.count_sql())
        counts = dict(cursor.fetchall())
    retention = counts.pop(_RETENTION_GROUP, 0)
    unrecognized = counts.pop(_UNRECOGNIZED_GROUP, 0)
    counts = dict(sorted(counts.items()))
    return KeyUsage(
        counts_by_key_id=counts, retention_count=retention, unrecognized_count=unrecognized
    )


def reencrypt(
    column: EncryptedColumn,
    *,
    keys: Sequence[SymmetricKey],
    batch_size: int = BATCH_SIZE,
    report_progress: Callable[[int], None] = lambda processed: None,
    report_undecryptable: Callable[[str], None] = lambda key: None,
) -> ReencryptionResult:
    """Encrypt the texts of the column under any but the first key again; return the counts.

    A text that can't be decrypted stays unchanged. Each batch is committed. On PostgreSQL one batch
    is written on a second connection while the next one is encrypted, and locked rows are skipped
    instead of waited for.

    report_progress: called after each batch with the number of processed texts.
    report_undecryptable: called with the primary key of a row that can't be decrypted.
    Raises: RuntimeError inside a transaction.
    """
    if connections[column.using].in_atomic_block:
        raise RuntimeError(
            "Encrypting again commits batch by batch, so it can't run inside a transaction."
        )
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
            for changes, processed in self._iter_batches():
                self._finish_batch(changes, self._write_changes(changes))
                report_progress(processed)
        return self._result

    def _run_with_parallel_writes(self, report_progress: Callable[[int], None]) -> None:
        """Encrypt a batch while the previous one is written."""
        with ThreadPoolExecutor(max_workers=1) as writer:
            try:
                previous: tuple[list[_Replacement], Future[int]] | None = None
                for changes, processed in self._iter_batches():
                    if previous:
                        self._finish_batch(previous[0], previous[1].result())
                    previous = changes, writer.submit(self._write_changes, changes)
                    report_progress(processed)
                if previous:
                    self._finish_batch(previous[0], previous[1].result())
            finally:
                writer.submit(lambda: connections[self._using].close()).result()  # noqa: PLW0108 -- that thread's own one

    def _iter_batches(self) -> Iterator[tuple[list[_Replacement], int]]:
        """Yield the replacements of each batch and the number of texts processed so far."""
        processed = 0
        rows = self._read_rows({})
        while rows:
            processed += len(rows)
            yield self._reencrypt_rows(rows, self._record_undecryptable), processed
            rows = self._read_rows({"pk__gt": rows[-1][0]})

    def _record_undecryptable(self, pk: Any) -> None:
        self._result.undecryptable += 1
        self._report_undecryptable(str(pk))

    def _finish_batch(self, changes: list[_Replacement], written: int) -> None:
        """Count what was written, and retry the rows that others locked, changed or deleted."""
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
        """Return primary key, natural key and text of the next rows whose text is under an older
        key or none.
        """
        # Not by the model's manager, which may exclude rows.
        rows: QuerySet[Any] = (
            QuerySet(self._field.model, using=self._using).filter(**bounds).order_by("pk")
        )
        condition, params = self._sql.needs_reencryption_sql(self._keys[0].id)
        # As an extra column, because the field would create an EncryptedText for each.
        rows = rows.extra(  # noqa: S610 -- the model's names
            select={_TEXT_ALIAS: self._sql.qualified_column}, where=[condition], params=params
        )
        return list(rows.values_list("pk", *self._field.bind, _TEXT_ALIAS)[: self._batch_size])

    def _reencrypt_rows(
        self, rows: list[Any], on_undecryptable: Callable[[Any], None]
    ) -> list[_Replacement]:
        changes = []
        for pk, *natural_key, text in rows:
            try:
                if _SEPARATOR in text:
                    raise Undecryptable
                context = self._field.get_encryption_context(natural_key)
                changes.append(
                    _Replacement(
                        pk, text, keyring.reencrypt_text(text, context=context, keys=self._keys)
                    )
                )
            except (Undecryptable, TypeError):
                on_undecryptable(pk)
        return changes

    def _write_changes(self, changes: list[_Replacement]) -> int:
        """Replace each text that is unchanged, in one transaction; return how many were
        replaced.
        """
        if not changes:
            return 0
        connection: Any = connections[self._using]
        keys = self._sql.prepare_pk_values([change.pk for change in changes])
        if connection.vendor != "postgresql":
            params = []
            for *key, change in zip(*keys, changes, strict=True):
                params.append((change.new_text, *key, change.old_text))
            with transaction.atomic(using=self._using), connection.cursor() as cursor:
                cursor.executemany(self._sql.replace_one_sql(), params)
                return int(cursor.rowcount)
        old_texts = _SEPARATOR.join([change.old_text for change in changes])
        new_texts = _SEPARATOR.join([change.new_text for change in changes])
        with durable(self._using), connection.wrap_database_errors:
            connection.ensure_connection()
            # Bound on the server: Django's cursor would send a megabyte of SQL for the server to
            # parse.
            with connection.Database.Cursor(connection.connection) as cursor:
                cursor.execute(self._sql.replace_many_sql(), [*keys, old_texts, new_texts])
                return int(cursor.rowcount)


class _ColumnSQL:
    """The SQL of one column. Names come from the models, and values are bound."""

    def __init__(self, column: EncryptedColumn) -> None:
        self._connection = connection = cast(Any, connections[column.using])
        quote = connection.ops.quote_name
        self._pk_fields: list[Any] = list(column.field.model._meta.pk_fields)
        self._pk_columns = [quote(pk_field.column) for pk_field in self._pk_fields]
        self._table = quote(column.table)
        self._column = quote(column.field.column)
        self.qualified_column = text = f"{self._table}.{self._column}"
        matches = connection.operators["regex"]
        # A text that names no key is not selected, because it may be plaintext.
        self._key_id_sql = (
            f"CASE WHEN {text} {matches} THEN substr({text}, 1, 8)"
            f" WHEN {text} {matches} THEN '{_RETENTION_GROUP}' WHEN {text} IS NOT NULL THEN "
            f"'{_UNRECOGNIZED_GROUP}' END"
        )

    def prepare_pk_values(self, pks: Sequence[Any]) -> list[list[Any]]:
        """Return the values of each column of the primary key, for the database driver."""
        columns: Iterable[Sequence[Any]]
        if len(self._pk_fields) > 1:
            columns = zip(*pks, strict=True)
        else:
            columns = [pks]
        pk_values = []
        for pk_field, values in zip(self._pk_fields, columns, strict=True):
            pk_values.append(
                [pk_field.get_db_prep_value(value, self._connection) for value in values]
            )
        return pk_values

    def count_sql(self) -> tuple[str, list[str]]:
        return (
            f"SELECT {self._key_id_sql}, count(*) FROM {self._table} "  # noqa: S608 -- the model's names, here and below
            f"WHERE {self._column} IS NOT NULL GROUP BY 1",
            [ENCRYPTION_KEY_PATTERN, RETENTION_KEY_PATTERN],
        )

    def needs_reencryption_sql(self, newest_key_id: str) -> tuple[str, list[str]]:
        """The condition for a text that is neither under the newest key nor under a retention
        key.
        """
        condition = f"{self._key_id_sql} NOT IN (%s, '{_RETENTION_GROUP}')"
        return condition, [ENCRYPTION_KEY_PATTERN, RETENTION_KEY_PATTERN, newest_key_id]

    def replace_one_sql(self) -> str:
        """Parameters: new text, primary key, old text."""
        key = " AND ".join(f"{column} = %s" for column in self._pk_columns)
        return f"UPDATE {self._table} SET {self._column} = %s WHERE {key} AND {self._column} = %s"  # noqa: S608

    def replace_many_sql(self) -> str:
        """For PostgreSQL. Parameters: a list per column of the primary key, then old and new texts,
        joined by commas.

        Locked rows are skipped, because a transaction that never waits while it holds locks can't
        deadlock.
        """
        names = []
        for number in range(len(self._pk_columns)):
            names.append(f"k{number}")
        placeholders = []
        for pk_field in self._pk_fields:
            placeholders.append(f"%s::{pk_field.db_type(self._connection)}[]")
        arrays = ", ".join(placeholders)
        conditions = []
        for name, column in zip(names, self._pk_columns, strict=True):
            conditions.append(f"b.{name} = t.{column}")
        match = " AND ".join(conditions)
        return f"""
            WITH changes AS MATERIALIZED (
                SELECT * FROM unnest({arrays}, string_to_array(%s, ','), string_to_array(%s, ','))
                AS changes({", ".join(names)}, old, new)
            ), locked AS MATERIALIZED (
                SELECT b.* FROM changes AS b JOIN {self._table} AS t ON {match} AND t.{self._column} = b.old
                FOR NO KEY UPDATE OF t SKIP LOCKED
            )
            UPDATE {self._table} AS t SET {self._column} = b.new
            FROM locked AS b WHERE {match} AND t.{self._column} = b.old
        """  # noqa: E501, S608
