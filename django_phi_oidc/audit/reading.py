"""Events as the database holds them, in bytes, in one pass: what seals and what verifies trusts no model.

A row may have been altered to what no model could load, so nothing of it is parsed: the canonical form is made of the
columns as they are, by PostgreSQL itself (three times as fast as here), or here out of what SQLite gives.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from django.db import connections, transaction

from .. import keyring
from ..merkle.rfc6962 import MAX_TREE_SIZE
from .events import FIELDS, mac_under
from .routing import AUDIT_ALIAS

_EVENT, _LEAF, _QUEUE, _CHECKPOINT = (
    f"django_phi_oidc_audit{name}" for name in ("event", "leaf", "unsealed", "checkpoint")
)
_OF_EVENT = f"FROM {_EVENT} e LEFT JOIN {_LEAF} l ON l.event_id = e.id"
_OF_LEAF = f"FROM {_LEAF} l LEFT JOIN {_EVENT} e ON e.id = l.event_id"
_OF_QUEUE = f"FROM {_QUEUE} u {{}} LEFT JOIN {_LEAF} l ON 1 = 0"
_TO_EVENT = {
    # The queue leads, whatever the planner knows of it: led by the trail, each batch would walk all that is sealed.
    "postgresql": f"CROSS JOIN LATERAL (SELECT * FROM {_EVENT} WHERE id = u.event_id OFFSET 0) e",  # noqa: S608 -- ours
    "sqlite": f"JOIN {_EVENT} e ON e.id = u.event_id",
}
_SQL: dict[str, str] = {
    "v": "e.v",
    "id": "e.id",
    # to_char tells neither 2026 BC from 2026, nor anything of infinity.
    "occurred_at": """CASE WHEN e.occurred_at >= '0001-01-01 00:00:00+00' AND e.occurred_at < '10000-01-01 00:00:00+00'
        THEN to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ELSE e.occurred_at::text END""",
    "detail": "e.detail",
}
_PLACES = {"v": "%s", "id": '"%s"', "occurred_at": '"%s"', "detail": "%s"}


def _spelled(place: str, value: str) -> str:
    """Return SQL for the canonical form; place, value: of a text, where it stands in it, and what stands there."""
    members = ",".join(f'"{name}":{_PLACES.get(name, place)}' for name in FIELDS)
    return f"format('{{{members}}}', {', '.join(_SQL.get(name, value.format(name)) for name in FIELDS)})"


_TEXTS = " || ".join(f"e.{name}" for name in FIELDS if name not in _SQL)
# One look at all texts tells whether any of them has something to escape, which takes as long as all the rest.
_IS_PLAIN = f"octet_length(to_json({_TEXTS})::text) = octet_length({_TEXTS}) + 2"
_PLAIN, _ESCAPED = _spelled('"%s"', "e.{}"), _spelled("%s", "to_json(e.{})")
_CANONICAL = f"CASE WHEN {_IS_PLAIN} THEN {_PLAIN} WHEN e.id IS NOT NULL THEN {_ESCAPED} END"
_COLUMNS = (
    "coalesce(l.leaf_index, -1), coalesce(uuid_send(coalesce(l.event_id, e.id)), ''), coalesce(l.leaf_hash, ''), "
    f"coalesce(e.mac_key, ''), coalesce(e.mac, ''), convert_to({_CANONICAL}, 'UTF8')"
)
_TYPES = ("int8", "bytea", "bytea", "text", "bytea", "bytea")
# One index look-up for each row: a plan that sorts or hashes the whole trail for some of it would spill to the disk.
_PLAN = ("enable_hashjoin", "enable_mergejoin", "enable_bitmapscan", "enable_seqscan", "enable_sort", "jit")
_SQLITE_COLUMNS = (
    "l.leaf_index, coalesce(l.event_id, e.id), l.leaf_hash, e.mac_key, e.mac, e.id IS NOT NULL, "
    f"{', '.join(f'e.{name}' for name in FIELDS)}"
)
_SQLITE_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?")
_to_json = json.JSONEncoder(ensure_ascii=False, default=repr).encode


class RawEvent(NamedTuple):
    """An event beside its leaf; one of the two may be missing."""

    leaf_index: int
    """-1 where there is no leaf."""
    event_id: bytes
    """16 bytes, but for an id on SQLite that is no UUID; of the leaf where there is one."""
    leaf_hash: bytes
    mac_key: str
    mac: bytes
    canonical: bytes | None
    """What the MAC and the leaf are over, for this row as it stands; None where there is no event, empty where the row
    can be none."""


def read_queue(*, after: uuid.UUID, limit: int, refused: bool = False) -> Iterator[RawEvent]:
    """Yield events of the queue with an id beyond after, by id; refused: those whose MAC did not fit, too.

    Whether one has a leaf is NOT looked up: a second leaf of it is refused by the database.
    """
    open_ones = "" if refused else "AND NOT u.refused"
    source = _OF_QUEUE.format(_TO_EVENT[connections[AUDIT_ALIAS].vendor])
    return _read(f"{source} WHERE u.event_id > {_literal(after)} {open_ones} ORDER BY u.event_id LIMIT {limit:d}")


def read_leaves(start: int, end: int) -> Iterator[RawEvent]:
    """Yield the leaves with an index in [start, end), by index, with their events."""
    return _read(f"{_OF_LEAF} WHERE l.leaf_index >= {start:d} AND l.leaf_index < {end:d} ORDER BY l.leaf_index")


def read_leaves_beyond(tree_size: int, *, limit: int) -> Iterator[RawEvent]:
    """Yield up to limit leaves with an index that a log of tree_size leaves does not have."""
    return _read(f"{_OF_LEAF} WHERE l.leaf_index < 0 OR l.leaf_index >= {tree_size:d} LIMIT {limit:d}", planned=False)


def read_leafless(tree_size: int) -> Iterator[RawEvent]:
    """Yield all events that have no leaf with an index in [0, tree_size), by id. It reads the trail's whole index."""
    among = f"{_OF_EVENT} AND l.leaf_index >= 0 AND l.leaf_index < {tree_size:d}"
    return _read(f"{among} WHERE l.event_id IS NULL ORDER BY e.id", planned=False)


def read_restored() -> Iterator[RawEvent]:
    """Yield the events that say that the log was restored."""
    return _read(f"{_OF_EVENT} WHERE e.action = 'audit.restored' ORDER BY e.id", planned=False)


def read_queued_without_event() -> Iterator[bytes]:
    """Yield the ids in the queue that no event has: 16 bytes, but for an id on SQLite that is no UUID."""
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT u.event_id FROM {_QUEUE} u LEFT JOIN {_EVENT} e ON e.id = u.event_id "  # noqa: S608 -- ours
            "WHERE e.id IS NULL ORDER BY u.event_id"
        )
        yield from (_id_bytes(id_) for (id_,) in iter(cursor.fetchone, None))


class RawCheckpoint(NamedTuple):
    """A checkpoint as its row has it."""

    tree_size: int
    """-1 where it is no number, as SQLite lets it."""
    root_hash: bytes
    epoch: int
    note: str


def read_checkpoints(
    after: int, *, limit: int, newest_first: bool = False, below: int = MAX_TREE_SIZE
) -> list[RawCheckpoint]:
    """Return up to limit checkpoints of a larger size than after and a smaller one than below, by size."""
    order = "DESC" if newest_first else "ASC"
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            f"SELECT tree_size, root_hash, epoch, note FROM {_CHECKPOINT} "  # noqa: S608 -- ours
            f"WHERE tree_size > %s AND (tree_size < %s OR %s) ORDER BY tree_size {order} LIMIT %s",
            [after, below, below == MAX_TREE_SIZE, limit],
        )
        return [
            RawCheckpoint(_number(size), raw(root), _number(epoch), str(note or ""))
            for size, root, epoch, note in cursor.fetchall()
        ]


def read_event(id_: uuid.UUID) -> RawEvent | None:
    """Return the event of that id; None when there is none."""
    return next(_read(f"{_OF_EVENT} WHERE e.id = {_literal(id_)}"), None)


def mac_checker() -> Callable[[str, bytes], bytes | None]:
    """Return what computes the MAC over canonical bytes by the id of its key; None for a key that is not configured.

    Raises: KeyMissing.
    """
    macs = {key.id: mac_under(key.material) for key in keyring.keys("AUDIT_MAC_KEYS")}

    def compute(key_id: str, canonical: bytes) -> bytes | None:
        mac = macs.get(key_id)
        return None if mac is None else mac(canonical)

    return compute


def _read(source: str, *, planned: bool = True) -> Iterator[RawEvent]:
    connection = connections[AUDIT_ALIAS]
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {_SQLITE_COLUMNS} {source}")
            yield from map(_of_sqlite, iter(cursor.fetchone, None))
        return
    with transaction.atomic(using=AUDIT_ALIAS), connection.cursor() as cursor:
        if planned:
            settings = ", ".join(f"set_config('{name}', 'off', true)" for name in _PLAN)
            cursor.execute(f"SELECT {settings}, set_config('max_parallel_workers_per_gather', '0', true)")
        statement = f"COPY (SELECT {_COLUMNS} {source}) TO STDOUT (FORMAT BINARY)"
        with connection.wrap_database_errors, cursor.copy(statement) as copied:
            copied.set_types(_TYPES)
            # What _make does, without a call of Python's for each row.
            yield from map(partial(tuple.__new__, RawEvent), copied.rows())


def _literal(id_: uuid.UUID) -> str:
    return f"'{id_}'" if connections[AUDIT_ALIAS].vendor == "postgresql" else f"'{id_.hex}'"


def _of_sqlite(row: tuple[Any, ...]) -> RawEvent:
    leaf_index, event_id, leaf_hash, mac_key, mac, exists, *values = row
    return RawEvent(
        leaf_index=-1 if leaf_index is None else leaf_index,
        event_id=_id_bytes(event_id),
        leaf_hash=raw(leaf_hash),
        mac_key=str(mac_key or ""),
        mac=raw(mac),
        canonical=_canonical(dict(zip(FIELDS, values, strict=True))) if exists else None,
    )


def _canonical(columns: dict[str, Any]) -> bytes:
    """Spell the row as `events.canonical_bytes` spells the event that it was; what it can't have been, somehow else."""
    special = {
        "v": str(columns["v"]),
        "id": f'"{_dashed(columns["id"])}"',
        "occurred_at": f'"{_SQLITE_TIME.sub(_instant, str(columns["occurred_at"]))}"',
        "detail": str(columns["detail"]),
    }
    members = (f'"{name}":{special.get(name) or _to_json(columns[name])}' for name in FIELDS)
    return ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")


def _instant(found: re.Match[str]) -> str:
    return f"{found[1]}T{found[2]}.{(found[3] or ''):0<6}Z"


def _dashed(text: Any) -> str:
    found = _id_bytes(text)
    return str(uuid.UUID(bytes=found)) if len(found) == 16 else str(text)


def _id_bytes(text: Any) -> bytes:
    try:
        return text.bytes if isinstance(text, uuid.UUID) else uuid.UUID(hex=text).bytes
    except (AttributeError, TypeError, ValueError):
        return repr(text).encode("utf-8", "surrogatepass")


def _number(value: Any) -> int:
    return value if isinstance(value, int) else -1


def raw(value: Any) -> bytes:
    """Return the bytes in a column of bytes; none where it holds something else, as SQLite lets it."""
    return bytes(value) if isinstance(value, bytes | memoryview) else b""
