"""Read events as raw bytes in one pass. Sealing and verification do not trust the models.

A row may have been altered so that no model can load it, so nothing is parsed: the canonical form
is built of the columns as they are. PostgreSQL sends them by binary COPY, and computes nothing.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections

from ...crypto import keyring
from ..events import Event, create_mac_function, serialize_columns
from ..merkle.rfc6962 import MAX_TREE_SIZE
from ..router import AUDIT_ALIAS
from ..trusted_transaction import trusted_transaction

_EVENT_TABLE, _LEAF_TABLE, _QUEUE_TABLE, _CHECKPOINT_TABLE = (
    f"phi_oidc_audit_audit{name}" for name in ("event", "leaf", "unsealed", "checkpoint")
)
_FROM_EVENT = f"FROM {_EVENT_TABLE} e LEFT JOIN {_LEAF_TABLE} l ON l.event_id = e.id"
_FROM_LEAF = f"FROM {_LEAF_TABLE} l LEFT JOIN {_EVENT_TABLE} e ON e.id = l.event_id"
_FROM_QUEUE = f"FROM {_QUEUE_TABLE} u {{}} LEFT JOIN {_LEAF_TABLE} l ON 1 = 0"
_JOIN_EVENT = {
    # The queue must be the outer side, regardless of statistics: otherwise each batch would scan
    # all sealed events.
    "postgresql": f"CROSS JOIN LATERAL (SELECT * FROM {_EVENT_TABLE} "  # noqa: S608 -- constants
    "WHERE id = u.event_id OFFSET 0) e",
    "sqlite": f"JOIN {_EVENT_TABLE} e ON e.id = u.event_id",
}
_EVENT_TYPES = {"id": "uuid", "v": "int2", "occurred_at": "timestamptz"}
# Without casts: their functions can return other values. `trusted_transaction` compares the types.
_COLUMN_TYPES = {
    **{"l.leaf_index": "int8", "l.event_id": "uuid", "l.leaf_hash": "bytea", "e.mac": "bytea"},
    **{f"e.{name}": _EVENT_TYPES.get(name, "text") for name in Event._fields},
}
# In the binary format, a uuid is 16 bytes, and a time is the number of microseconds since
# _TIME_ORIGIN.
_BINARY_TYPES = tuple(
    {"uuid": "bytea", "timestamptz": "int8"}.get(type_, type_) for type_ in _COLUMN_TYPES.values()
)
_TIME_ORIGIN = datetime(2000, 1, 1)  # noqa: DTZ001 -- in UTC, and written without an offset
_ORIGIN_MICROSECONDS = int(_TIME_ORIGIN.replace(tzinfo=UTC).timestamp()) * 1_000_000
"""_TIME_ORIGIN since 1970."""
UUID_BYTES = 16
_ID_START = b'"id":"'
"""The last one is that of the event: `detail` comes before it, and then only texts, in which quotes
are escaped.
"""


class RawEvent(NamedTuple):
    """An event and its leaf; one of the two may be missing."""

    leaf_index: int
    """-1 without a leaf."""
    event_id: bytes
    """That of the leaf, if there is one. 16 bytes; more on SQLite for an id that is not spelled
    like a UUID.
    """
    leaf_hash: bytes
    mac_key: str
    mac: bytes
    canonical: bytes | None
    """The MAC and leaf input of this row as it is; None without an event, empty if a value has no
    canonical form.
    """
    columns: tuple[Any, ...] = ()
    """The arguments of `has_plain_columns`, if this row was read and has a canonical form."""
    microseconds: int = 0
    """When it occurred, since 1970; 0 without a canonical form."""


def read_queue(
    *, after_id: uuid.UUID | None, limit: int, include_refused: bool = False
) -> Iterator[RawEvent]:
    """Yield queued events with an id greater than after_id, by id; None: from the lowest id on.

    include_refused: also those with an invalid MAC.

    Whether an event already has a leaf is NOT looked up: the database refuses a second leaf of an
    event.
    """
    if include_refused:
        refused_filter = ""
    else:
        refused_filter = "AND NOT u.refused"

    source = _FROM_QUEUE.format(_JOIN_EVENT[connections[AUDIT_ALIAS].vendor])
    if after_id is None:
        condition = f"u.event_id >= {_uuid_literal(uuid.UUID(int=0))}"
    else:
        condition = f"u.event_id > {_uuid_literal(after_id)}"
    return _read_rows(
        f"{source} WHERE {condition} {refused_filter} ORDER BY u.event_id LIMIT {limit:d}"
    )


def read_leaves(start: int, end: int) -> Iterator[RawEvent]:
    """Yield the leaves with an index in [start, end), by index, with their events."""
    return _read_rows(
        f"{_FROM_LEAF} WHERE l.leaf_index >= {start:d} AND "
        f"l.leaf_index < {end:d} ORDER BY l.leaf_index"
    )


def read_leaves_beyond(tree_size: int, *, limit: int) -> Iterator[RawEvent]:
    """Yield up to `limit` leaves with an index outside [0, tree_size)."""
    condition = f"l.leaf_index < 0 OR l.leaf_index >= {tree_size:d}"
    return _read_rows(f"{_FROM_LEAF} WHERE {condition} LIMIT {limit:d}", force_index_lookups=False)


def read_unqueued_events(
    first_id: uuid.UUID, end_id: uuid.UUID, *, limit: int
) -> Iterator[RawEvent]:
    """Yield up to `limit` events with an id in [first_id, end_id) that have no leaf, and that no
    sealer will read.
    """
    first = _uuid_literal(first_id)
    end = _uuid_literal(end_id)
    source = f"{_FROM_EVENT} AND l.event_id >= {first} AND l.event_id < {end}"
    source += f" LEFT JOIN {_QUEUE_TABLE} u ON u.event_id = e.id AND NOT u.refused"
    condition = f"e.id >= {first} AND e.id < {end} AND l.event_id IS NULL AND u.event_id IS NULL"
    return _read_rows(f"{source} WHERE {condition} ORDER BY e.id LIMIT {limit:d}")


def read_leafless_events(
    tree_size: int, *, first_id: uuid.UUID | None = None, end_id: uuid.UUID | None = None
) -> Iterator[RawEvent]:
    """Yield the events with an id in [first_id, end_id) that are neither queued nor have a leaf in
    [0, tree_size).

    By id. Reads the index of all events in that range; None: without that bound.
    """
    if first_id:
        bounds = [f"{{0}} >= {_uuid_literal(first_id)}"]
    else:
        bounds = []

    if end_id:
        bounds += [f"{{0}} < {_uuid_literal(end_id)}"]

    joined = [
        f"l.leaf_index >= 0 AND l.leaf_index < {tree_size:d}",
        *(bound.format("l.event_id") for bound in bounds),
    ]
    source = (
        f"{_FROM_EVENT} AND {' AND '.join(joined)} LEFT JOIN {_QUEUE_TABLE} u ON u.event_id = e.id"
    )
    conditions = [
        "l.event_id IS NULL",
        "u.event_id IS NULL",
        *(bound.format("e.id") for bound in bounds),
    ]
    return _read_rows(
        f"{source} WHERE {' AND '.join(conditions)} ORDER BY e.id", force_index_lookups=False
    )


def read_queued_leafless_events(tree_size: int) -> Iterator[RawEvent]:
    """Yield the queued events that have no leaf with an index in [0, tree_size), by id."""
    source = (
        f"FROM {_QUEUE_TABLE} u "
        f"{_JOIN_EVENT[connections[AUDIT_ALIAS].vendor]} LEFT JOIN {_LEAF_TABLE} l "
    )
    source += f"ON l.event_id = u.event_id AND l.leaf_index >= 0 AND l.leaf_index < {tree_size:d}"
    return _read_rows(f"{source} WHERE l.event_id IS NULL ORDER BY u.event_id")


def read_event_id(leaf_index: int) -> uuid.UUID | None:
    """Return the id of the event of a leaf, or of the next one in the table.

    None if there is none, or the id is not a UUID.
    """
    with trusted_transaction(), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT event_id FROM {_LEAF_TABLE} WHERE "  # noqa: S608 -- constants
            "leaf_index >= %s ORDER BY leaf_index LIMIT 1",
            [leaf_index],
        )
        row = cursor.fetchone()

    if row:
        id_bytes = _parse_id_bytes(row[0])
    else:
        id_bytes = b""

    if len(id_bytes) == 16:
        return uuid.UUID(bytes=id_bytes)
    return None


def read_restore_events() -> Iterator[RawEvent]:
    """Yield the `audit.restored` events."""
    return _read_rows(
        f"{_FROM_EVENT} WHERE e.action = 'audit.restored' ORDER BY e.id", force_index_lookups=False
    )


def read_archive_events() -> Iterator[RawEvent]:
    """Yield the `audit.archived` events, by id."""
    return _read_rows(
        f"{_FROM_EVENT} WHERE e.action = 'audit.archived' ORDER BY e.id", force_index_lookups=False
    )


def read_orphaned_queue_ids() -> Iterator[bytes]:
    """Yield queued ids without an event: 16 bytes, except on SQLite for an id that is not a
    UUID.
    """
    with trusted_transaction(), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT u.event_id FROM {_QUEUE_TABLE} u LEFT JOIN "  # noqa: S608 -- constants
            f"{_EVENT_TABLE} e ON e.id = u.event_id "
            "WHERE e.id IS NULL ORDER BY u.event_id"
        )
        yield from (_parse_id_bytes(id_) for (id_,) in iter(cursor.fetchone, None))


class RawCheckpoint(NamedTuple):
    """A checkpoint as it is in its row."""

    tree_size: int
    root_hash: bytes
    epoch: int
    """-1 if it is not an integer, which only SQLite stores."""
    note: str


def read_checkpoints(
    after_size: int, *, limit: int, newest_first: bool = False, below_size: int = MAX_TREE_SIZE
) -> list[RawCheckpoint]:
    """Return up to `limit` checkpoints with a tree size between after_size and below_size
    (exclusive), by size.

    On SQLite without those of `read_checkpoints_without_size`, which are between the others, or
    after them.
    """
    order = "DESC" if newest_first else "ASC"

    if connections[AUDIT_ALIAS].vendor == "postgresql":
        is_integer = ""
    else:
        is_integer = "typeof(tree_size) = 'integer' AND"

    with trusted_transaction(), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT tree_size, root_hash, epoch, note FROM {_CHECKPOINT_TABLE} "  # noqa: S608 -- constants
            f"WHERE {is_integer} tree_size > %s AND (tree_size < %s OR "
            f"%s) ORDER BY tree_size {order} LIMIT %s",
            [after_size, below_size, below_size == MAX_TREE_SIZE, limit],
        )
        checkpoints = []
        for size, root, epoch, note in cursor.fetchall():
            checkpoints.append(
                RawCheckpoint(size, as_bytes(root), _as_integer(epoch), str(note or ""))
            )
        return checkpoints


def read_checkpoints_without_size(*, limit: int) -> list[str]:
    """Return the tree sizes, as SQL, of up to `limit` checkpoints where it is no integer, which
    only SQLite stores.
    """
    if connections[AUDIT_ALIAS].vendor == "postgresql":
        return []
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT quote(tree_size) FROM {_CHECKPOINT_TABLE} "  # noqa: S608 -- constants
            "WHERE typeof(tree_size) <> 'integer' ORDER BY tree_size LIMIT %s",
            [limit],
        )
        return [str(size) for (size,) in cursor.fetchall()]


def find_raw_event(event_id: uuid.UUID) -> RawEvent | None:
    """Return the event with that id, if any."""
    return next(_read_rows(f"{_FROM_EVENT} WHERE e.id = {_uuid_literal(event_id)}"), None)


def find_canonical_id(canonical: bytes) -> str:
    """Return the id in the canonical bytes of a sealed event; anything if they are of no event."""
    start = canonical.rfind(_ID_START) + len(_ID_START)
    return canonical[start : start + 36].decode("ascii", "replace")


def create_mac_calculator() -> Callable[[str, bytes], bytes | None]:
    """Return a function that computes the MAC of canonical bytes by key id; None for a key that is
    not configured.

    Raises: KeyMissing.
    """
    macs = {key.id: create_mac_function(key.material) for key in keyring.get_keys("audit_mac")}

    def compute(key_id: str, canonical: bytes) -> bytes | None:
        mac = macs.get(key_id)
        if mac is None:
            return None
        return mac(canonical)

    return compute


def _read_rows(source: str, *, force_index_lookups: bool = True) -> Iterator[RawEvent]:
    connection: Any = connections[AUDIT_ALIAS]
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            # The plus: sqlite3 converts the values of columns, but not those of expressions.
            cursor.execute(f"SELECT {', '.join(f'+{name}' for name in _COLUMN_TYPES)} {source}")
            yield from map(_build_raw_event, map(_convert_sqlite_row, iter(cursor.fetchone, None)))
        return
    with (
        trusted_transaction(force_index_lookups=force_index_lookups),
        connection.cursor() as cursor,
    ):
        statement = f"COPY (SELECT {', '.join(_COLUMN_TYPES)} {source}) TO STDOUT (FORMAT BINARY)"
        with connection.wrap_database_errors, cursor.copy(statement) as copied:
            copied.set_types(_BINARY_TYPES)
            rows: Iterator[Any] = copied.rows()
            if connection.Database.pq.__impl__ == "python":
                # Without its C extension, psycopg returns memoryviews, which can be neither packed
                # nor ordered.
                rows = map(_convert_memoryviews, rows)
            yield from map(_build_raw_event, rows)


def _convert_memoryviews(row: Sequence[Any]) -> tuple[Any, ...]:
    values = []
    for value in row:
        if isinstance(value, memoryview):
            values.append(bytes(value))
        else:
            values.append(value)
    return tuple(values)


def _uuid_literal(id_: uuid.UUID) -> str:
    if connections[AUDIT_ALIAS].vendor == "postgresql":
        return f"'{id_}'"
    return f"'{id_.hex}'"


def _build_raw_event(row: Sequence[Any]) -> RawEvent:
    """Return the event of a row as COPY sends it. This is a quarter of the time of a
    verification.
    """
    leaf_index, leaf_event_id, leaf_hash, mac, id_, v, mac_key, time, *texts, detail = row
    canonical = None if id_ is None else b""
    columns: tuple[Any, ...] = ()
    microseconds = 0
    if id_ is not None and len(id_) == UUID_BYTES and v is not None and detail is not None:
        hex_id = id_.hex()
        text_id = f"{hex_id[:8]}-{hex_id[8:12]}-{hex_id[12:16]}-{hex_id[16:20]}-{hex_id[20:]}"
        # NULL, infinity, and years that Python cannot represent have no canonical form.
        try:
            seconds, micros = divmod(time, 1_000_000)
            text_time = f"{_format_second(seconds)}.{micros:06}"
            canonical = serialize_columns(
                text_id, v, mac_key, text_time, texts, detail=detail
            ).encode()
            columns = v, mac_key, texts, detail
            microseconds = time + _ORIGIN_MICROSECONDS
        except (TypeError, OverflowError):
            pass

    if leaf_index is None:
        index = -1
    else:
        index = leaf_index

    values = (
        index,
        leaf_event_id or id_ or b"",
        leaf_hash or b"",
        mac_key or "",
        mac or b"",
        canonical,
        columns,
        microseconds,
    )
    return tuple.__new__(RawEvent, values)


@lru_cache(maxsize=1024)
def _format_second(seconds: int) -> str:
    """Return a time since _TIME_ORIGIN. Few differ: rows are read in about the order of their
    times.
    """
    return (_TIME_ORIGIN + timedelta(seconds=seconds)).isoformat()


def _convert_sqlite_row(row: Sequence[Any]) -> list[Any]:
    """Return the row as PostgreSQL sends it. A value of another type, which SQLite accepts, becomes
    None.
    """
    converters = {
        "int2": _find_integer,
        "int8": _find_integer,
        "uuid": _parse_id_bytes,
        "bytea": as_bytes,
        "timestamptz": _find_microseconds,
    }
    types = zip(_COLUMN_TYPES.values(), row, strict=True)
    sqlite_row = []
    for type_, value in types:
        sqlite_row.append(None if value is None else converters.get(type_, _find_text)(value))
    return sqlite_row


def _parse_id_bytes(value: Any) -> bytes:
    """Return 16 bytes; more for a value that is not spelled like the id of an event, and thus never
    found.
    """
    try:
        if isinstance(value, uuid.UUID):
            id_ = value
        else:
            id_ = uuid.UUID(hex=value)
    except (AttributeError, TypeError, ValueError):
        id_ = None
    if id_ is not None and value in (id_, id_.hex):
        return id_.bytes
    return repr(value).encode("utf-8", "surrogatepass").ljust(UUID_BYTES + 1)


def _find_microseconds(value: Any) -> int | None:
    """Return a time since _TIME_ORIGIN, if it is spelled as Django does."""
    with suppress(TypeError, ValueError):
        time = datetime.fromisoformat(value)
        if time.tzinfo is None and str(time) == value:
            return (time - _TIME_ORIGIN) // timedelta(microseconds=1)
    return None


def _find_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None


def _find_integer(value: Any) -> int | None:
    if isinstance(value, int):
        return value
    return None


def _as_integer(value: Any) -> int:
    if isinstance(value, int):
        return value
    return -1


def as_bytes(value: Any) -> bytes:
    """Return the bytes of a binary column; none if it holds another type, which SQLite accepts."""
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return b""
