"""Read events as raw bytes in one pass. Sealing and verification do not trust the models.

A row may have been altered so that no model can load it, so nothing is parsed: the canonical form is built of the
columns as they are, by PostgreSQL (three times as fast as here), or here from what SQLite returns.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from django.db import connections, transaction

from ...crypto import keyring
from ...merkle.rfc6962 import MAX_TREE_SIZE
from ..events import EVENT_FIELDS, create_mac_function
from ..router import AUDIT_ALIAS

_EVENT_TABLE, _LEAF_TABLE, _QUEUE_TABLE, _CHECKPOINT_TABLE = (
    f"django_phi_oidc_audit{name}" for name in ("event", "leaf", "unsealed", "checkpoint")
)
_FROM_EVENT = f"FROM {_EVENT_TABLE} e LEFT JOIN {_LEAF_TABLE} l ON l.event_id = e.id"
_FROM_LEAF = f"FROM {_LEAF_TABLE} l LEFT JOIN {_EVENT_TABLE} e ON e.id = l.event_id"
_FROM_QUEUE = f"FROM {_QUEUE_TABLE} u {{}} LEFT JOIN {_LEAF_TABLE} l ON 1 = 0"
_JOIN_EVENT = {
    # The queue must be the outer side, regardless of statistics: otherwise each batch would scan all sealed events.
    "postgresql": f"CROSS JOIN LATERAL (SELECT * FROM {_EVENT_TABLE} WHERE id = u.event_id OFFSET 0) e",  # noqa: S608 -- constants
    "sqlite": f"JOIN {_EVENT_TABLE} e ON e.id = u.event_id",
}
_FIELD_SQL: dict[str, str] = {
    "v": "e.v",
    "id": "e.id",
    # to_char does not distinguish 2026 BC from 2026, and returns nothing for infinity.
    "occurred_at": """CASE WHEN e.occurred_at >= '0001-01-01 00:00:00+00' AND e.occurred_at < '10000-01-01 00:00:00+00'
        THEN pg_catalog.to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ELSE e.occurred_at::text END""",
    "detail": "e.detail",
}
_FIELD_PLACEHOLDERS = {"v": "%s", "id": '"%s"', "occurred_at": '"%s"', "detail": "%s"}


def _build_canonical_sql(placeholder: str, expression: str) -> str:
    """Return SQL for the canonical form. placeholder, expression: how a text column is formatted and read."""
    members = ",".join(f'"{name}":{_FIELD_PLACEHOLDERS.get(name, placeholder)}' for name in EVENT_FIELDS)
    values = ", ".join(_FIELD_SQL.get(name, expression.format(name)) for name in EVENT_FIELDS)
    return f"pg_catalog.format('{{{members}}}', {values})"


_JOINED_TEXTS = " OPERATOR(pg_catalog.||) ".join(f"e.{name}" for name in EVENT_FIELDS if name not in _FIELD_SQL)
# One test over all texts shows whether any needs escaping, which takes as long as everything else.
_NEEDS_NO_ESCAPING = (
    f"pg_catalog.octet_length(pg_catalog.to_json({_JOINED_TEXTS})::text) = pg_catalog.octet_length({_JOINED_TEXTS}) + 2"
)
_UNESCAPED_SQL = _build_canonical_sql('"%s"', "e.{}")
_ESCAPED_SQL = _build_canonical_sql("%s", "pg_catalog.to_json(e.{})")
_CANONICAL_SQL = f"CASE WHEN {_NEEDS_NO_ESCAPING} THEN {_UNESCAPED_SQL} WHEN e.id IS NOT NULL THEN {_ESCAPED_SQL} END"
# The casts: a column whose type was altered has another binary form, and would be read as other values.
_POSTGRESQL_COLUMNS = (
    "coalesce(l.leaf_index, -1)::int8, coalesce(pg_catalog.uuid_send(coalesce(l.event_id, e.id)), '')::bytea, "
    "coalesce(l.leaf_hash, '')::bytea, coalesce(e.mac_key, '')::text, coalesce(e.mac, '')::bytea, "
    f"pg_catalog.convert_to({_CANONICAL_SQL}, 'UTF8')::bytea"
)
_COLUMN_TYPES = ("int8", "bytea", "bytea", "text", "bytea", "bytea")
# One index look-up per row: a plan that sorts or hashes the whole table for some of its rows would spill to disk.
_DISABLED_PLANNER_OPTIONS = (
    *("enable_hashjoin", "enable_mergejoin", "enable_bitmapscan", "enable_seqscan", "enable_sort", "jit"),
)
# Functions and operators of pg_catalog come first, so that others with the same arguments replace none of them. The
# functions above are qualified, because of several with similar arguments the first is not always used.
_SEARCH_PATH_SQL = f"""
    pg_catalog.set_config('search_path', pg_catalog.concat('pg_catalog, ', (
        SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n
        JOIN pg_catalog.pg_class c ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('{_EVENT_TABLE}')), ', pg_temp'), true)"""  # noqa: S608 -- constants
_SQLITE_COLUMNS = (
    "l.leaf_index, coalesce(l.event_id, e.id), l.leaf_hash, e.mac_key, e.mac, e.id IS NOT NULL, "
    f"{', '.join(f'e.{name}' for name in EVENT_FIELDS)}"
)
_SQLITE_TIME_PATTERN = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?")
_encode_json = json.JSONEncoder(ensure_ascii=False, default=repr).encode


class RawEvent(NamedTuple):
    """An event and its leaf; one of the two may be missing."""

    leaf_index: int
    """-1 without a leaf."""
    event_id: bytes
    """That of the leaf, if there is one. 16 bytes, except on SQLite for an id that is not a UUID."""
    leaf_hash: bytes
    mac_key: str
    mac: bytes
    canonical: bytes | None
    """The MAC and leaf input of this row as it is; None without an event, empty if the row cannot be an event."""


def read_queue(*, after_id: uuid.UUID, limit: int, include_refused: bool = False) -> Iterator[RawEvent]:
    """Yield queued events with an id greater than after_id, by id. include_refused: also those with an invalid MAC.

    Whether an event already has a leaf is NOT looked up: the database refuses a second leaf of an event.
    """
    refused_filter = "" if include_refused else "AND NOT u.refused"
    source, after = _FROM_QUEUE.format(_JOIN_EVENT[connections[AUDIT_ALIAS].vendor]), _uuid_literal(after_id)
    return _read_rows(f"{source} WHERE u.event_id > {after} {refused_filter} ORDER BY u.event_id LIMIT {limit:d}")


def read_leaves(start: int, end: int) -> Iterator[RawEvent]:
    """Yield the leaves with an index in [start, end), by index, with their events."""
    return _read_rows(f"{_FROM_LEAF} WHERE l.leaf_index >= {start:d} AND l.leaf_index < {end:d} ORDER BY l.leaf_index")


def read_leaves_beyond(tree_size: int, *, limit: int) -> Iterator[RawEvent]:
    """Yield up to `limit` leaves with an index outside [0, tree_size)."""
    condition = f"l.leaf_index < 0 OR l.leaf_index >= {tree_size:d}"
    return _read_rows(f"{_FROM_LEAF} WHERE {condition} LIMIT {limit:d}", force_index_lookups=False)


def read_unqueued_events(first_id: uuid.UUID, end_id: uuid.UUID, *, limit: int) -> Iterator[RawEvent]:
    """Yield up to `limit` events with an id in [first_id, end_id) that have no leaf, and that no sealer will read."""
    first, end = _uuid_literal(first_id), _uuid_literal(end_id)
    source = f"{_FROM_EVENT} AND l.event_id >= {first} AND l.event_id < {end}"
    source += f" LEFT JOIN {_QUEUE_TABLE} u ON u.event_id = e.id AND NOT u.refused"
    condition = f"e.id >= {first} AND e.id < {end} AND l.event_id IS NULL AND u.event_id IS NULL"
    return _read_rows(f"{source} WHERE {condition} ORDER BY e.id LIMIT {limit:d}")


def read_leafless_events(
    tree_size: int, *, first_id: uuid.UUID | None = None, end_id: uuid.UUID | None = None
) -> Iterator[RawEvent]:
    """Yield the events with an id in [first_id, end_id) that are neither queued nor have a leaf in [0, tree_size).

    By id. Reads the index of all events in that range; None: without that bound.
    """
    bounds = [f"{{0}} >= {_uuid_literal(first_id)}"] if first_id else []
    bounds += [f"{{0}} < {_uuid_literal(end_id)}"] if end_id else []
    joined = [f"l.leaf_index >= 0 AND l.leaf_index < {tree_size:d}", *(bound.format("l.event_id") for bound in bounds)]
    source = f"{_FROM_EVENT} AND {' AND '.join(joined)} LEFT JOIN {_QUEUE_TABLE} u ON u.event_id = e.id"
    conditions = ["l.event_id IS NULL", "u.event_id IS NULL", *(bound.format("e.id") for bound in bounds)]
    return _read_rows(f"{source} WHERE {' AND '.join(conditions)} ORDER BY e.id", force_index_lookups=False)


def read_queued_leafless_events(tree_size: int) -> Iterator[RawEvent]:
    """Yield the queued events that have no leaf with an index in [0, tree_size), by id."""
    source = f"FROM {_QUEUE_TABLE} u {_JOIN_EVENT[connections[AUDIT_ALIAS].vendor]} LEFT JOIN {_LEAF_TABLE} l "
    source += f"ON l.event_id = u.event_id AND l.leaf_index >= 0 AND l.leaf_index < {tree_size:d}"
    return _read_rows(f"{source} WHERE l.event_id IS NULL ORDER BY u.event_id")


def read_event_id(leaf_index: int) -> uuid.UUID | None:
    """Return the id of the event of a leaf, or of the next one in the table.

    None if there is none, or the id is not a UUID.
    """
    with trusted_transaction(), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT event_id FROM {_LEAF_TABLE} WHERE leaf_index >= %s ORDER BY leaf_index LIMIT 1",  # noqa: S608 -- constants
            [leaf_index],
        )
        row = cursor.fetchone()
    id_bytes = _parse_id_bytes(row[0]) if row else b""
    return uuid.UUID(bytes=id_bytes) if len(id_bytes) == 16 else None


def read_restore_events() -> Iterator[RawEvent]:
    """Yield the `audit.restored` events."""
    return _read_rows(f"{_FROM_EVENT} WHERE e.action = 'audit.restored' ORDER BY e.id", force_index_lookups=False)


def read_orphaned_queue_ids() -> Iterator[bytes]:
    """Yield queued ids without an event: 16 bytes, except on SQLite for an id that is not a UUID."""
    with trusted_transaction(), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT u.event_id FROM {_QUEUE_TABLE} u LEFT JOIN {_EVENT_TABLE} e ON e.id = u.event_id "  # noqa: S608 -- constants
            "WHERE e.id IS NULL ORDER BY u.event_id"
        )
        yield from (_parse_id_bytes(id_) for (id_,) in iter(cursor.fetchone, None))


class RawCheckpoint(NamedTuple):
    """A checkpoint as it is in its row."""

    tree_size: int
    """-1 if it is not a number, which SQLite accepts."""
    root_hash: bytes
    epoch: int
    note: str


def read_checkpoints(
    after_size: int, *, limit: int, newest_first: bool = False, below_size: int = MAX_TREE_SIZE
) -> list[RawCheckpoint]:
    """Return up to `limit` checkpoints with a tree size between after_size and below_size (exclusive), by size."""
    order = "DESC" if newest_first else "ASC"
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT tree_size, root_hash, epoch, note FROM {_CHECKPOINT_TABLE} "  # noqa: S608 -- constants
            f"WHERE tree_size > %s AND (tree_size < %s OR %s) ORDER BY tree_size {order} LIMIT %s",
            [after_size, below_size, below_size == MAX_TREE_SIZE, limit],
        )
        return [
            RawCheckpoint(_as_integer(size), as_bytes(root), _as_integer(epoch), str(note or ""))
            for size, root, epoch, note in cursor.fetchall()
        ]


def find_raw_event(event_id: uuid.UUID) -> RawEvent | None:
    """Return the event with that id, if any."""
    return next(_read_rows(f"{_FROM_EVENT} WHERE e.id = {_uuid_literal(event_id)}"), None)


def create_mac_calculator() -> Callable[[str, bytes], bytes | None]:
    """Return a function that computes the MAC of canonical bytes by key id; None for a key that is not configured.

    Raises: KeyMissing.
    """
    macs = {key.id: create_mac_function(key.material) for key in keyring.get_keys("audit_mac")}

    def compute(key_id: str, canonical: bytes) -> bytes | None:
        mac = macs.get(key_id)
        return None if mac is None else mac(canonical)

    return compute


@contextmanager
def trusted_transaction(*, force_index_lookups: bool = False) -> Iterator[None]:
    """Open a transaction of the audit database in which no function or operator replaces one of PostgreSQL.

    An administrator can put a schema before `pg_catalog` (ALTER DATABASE … SET search_path), and in it a function that
    returns for an altered row what was sealed. NOT defended: functions that were replaced in `pg_catalog` itself.
    """
    connection = connections[AUDIT_ALIAS]
    if connection.vendor != "postgresql":
        # SQLite has no schemas, and a transaction would take the write lock.
        yield
        return
    options = dict.fromkeys(_DISABLED_PLANNER_OPTIONS, "off") | {"max_parallel_workers_per_gather": "0"}
    settings = [f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in options.items()]
    with transaction.atomic(using=AUDIT_ALIAS):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join([_SEARCH_PATH_SQL, *(settings if force_index_lookups else ())])}")
        yield


def _read_rows(source: str, *, force_index_lookups: bool = True) -> Iterator[RawEvent]:
    connection: Any = connections[AUDIT_ALIAS]
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {_SQLITE_COLUMNS} {source}")
            yield from map(_parse_sqlite_row, iter(cursor.fetchone, None))
        return
    with trusted_transaction(force_index_lookups=force_index_lookups), connection.cursor() as cursor:
        statement = f"COPY (SELECT {_POSTGRESQL_COLUMNS} {source}) TO STDOUT (FORMAT BINARY)"
        with connection.wrap_database_errors, cursor.copy(statement) as copied:
            copied.set_types(_COLUMN_TYPES)
            rows: Iterator[Any] = copied.rows()
            if connection.Database.pq.__impl__ == "python":
                # Without its C extension, psycopg returns memoryviews, which can be neither packed nor ordered.
                rows = (tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in rows)
            # As RawEvent._make, without a Python call per row.
            yield from map(partial(tuple.__new__, RawEvent), rows)


def _uuid_literal(id_: uuid.UUID) -> str:
    return f"'{id_}'" if connections[AUDIT_ALIAS].vendor == "postgresql" else f"'{id_.hex}'"


def _parse_sqlite_row(row: tuple[Any, ...]) -> RawEvent:
    leaf_index, event_id, leaf_hash, mac_key, mac, exists, *values = row
    return RawEvent(
        leaf_index=-1 if leaf_index is None else leaf_index,
        event_id=_parse_id_bytes(event_id),
        leaf_hash=as_bytes(leaf_hash),
        mac_key=str(mac_key or ""),
        mac=as_bytes(mac),
        canonical=_build_canonical_bytes(dict(zip(EVENT_FIELDS, values, strict=True))) if exists else None,
    )


def _build_canonical_bytes(columns: dict[str, Any]) -> bytes:
    """Return what `events.canonical_bytes` returns for the original event; other bytes for an altered row."""
    id_bytes = _parse_id_bytes(columns["id"])
    id_ = str(uuid.UUID(bytes=id_bytes)) if len(id_bytes) == 16 else repr(columns["id"])
    time = _SQLITE_TIME_PATTERN.sub(lambda m: f"{m[1]}T{m[2]}.{m[3] or '':0<6}Z", str(columns["occurred_at"]))
    special = {"v": str(columns["v"]), "id": f'"{id_}"', "occurred_at": f'"{time}"', "detail": str(columns["detail"])}
    members = (f'"{name}":{special.get(name) or _encode_json(columns[name])}' for name in EVENT_FIELDS)
    return ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")


def _parse_id_bytes(value: Any) -> bytes:
    """Return 16 bytes, or the text of a value that is not spelled like the id of an event, and thus never found."""
    try:
        id_ = value if isinstance(value, uuid.UUID) else uuid.UUID(hex=value)
    except (AttributeError, TypeError, ValueError):
        id_ = None
    if id_ is not None and value in (id_, id_.hex):
        return id_.bytes
    return repr(value).encode("utf-8", "surrogatepass")


def _as_integer(value: Any) -> int:
    return value if isinstance(value, int) else -1


def as_bytes(value: Any) -> bytes:
    """Return the bytes of a binary column; none if it holds another type, which SQLite accepts."""
    return bytes(value) if isinstance(value, bytes | memoryview) else b""
