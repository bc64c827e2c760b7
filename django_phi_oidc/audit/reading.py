"""Events as the database holds them, in bytes, in one pass: what seals and what verifies trusts no model.

A row may have been altered to what no model could load, so nothing of it is parsed: the canonical form is made of the
columns as they are, by PostgreSQL itself (three times as fast as here), or here out of what SQLite gives.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from django.db import connections, transaction

from .. import keyring
from .events import FIELDS
from .routing import AUDIT_ALIAS

_EVENT, _LEAF, _QUEUE = (f"django_phi_oidc_audit{name}" for name in ("event", "leaf", "unsealed"))
_OF_EVENT = f"FROM {_EVENT} e LEFT JOIN {_LEAF} l ON l.event_id = e.id"
_OF_LEAF = f"FROM {_LEAF} l LEFT JOIN {_EVENT} e ON e.id = l.event_id"
_OF_QUEUE = f"FROM {_QUEUE} u JOIN {_EVENT} e ON e.id = u.event_id LEFT JOIN {_LEAF} l ON l.event_id = u.event_id"
_SQL: dict[str, str] = {
    "v": "e.v::text",
    "id": """'"' || e.id::text || '"'""",
    "occurred_at": """'"' || to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"'""",
    "detail": "e.detail",
}
_MEMBERS = " || ',' || ".join(f"""'"{name}":' || {_SQL.get(name, f"to_json(e.{name})::text")}""" for name in FIELDS)
_CANONICAL = f"CASE WHEN e.id IS NOT NULL THEN coalesce('{{' || {_MEMBERS} || '}}', '') END"
_COLUMNS = (
    "coalesce(l.leaf_index, -1), uuid_send(coalesce(l.event_id, e.id)), coalesce(l.leaf_hash, ''), "
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
    """What the MAC and the leaf are over, for this row as it stands; None where there is no event."""


def read_queue(*, after: uuid.UUID, limit: int, refused: bool = False) -> Iterator[RawEvent]:
    """Yield events of the queue with an id beyond after, by id; refused: those whose MAC did not fit, too."""
    open_ones = "" if refused else "AND NOT u.refused"
    return _read(f"{_OF_QUEUE} WHERE u.event_id > {_literal(after)} {open_ones} ORDER BY u.event_id LIMIT {limit:d}")


def read_leaves(start: int, end: int) -> Iterator[RawEvent]:
    """Yield the leaves with an index in [start, end), by index, with their events."""
    return _read(f"{_OF_LEAF} WHERE l.leaf_index >= {start:d} AND l.leaf_index < {end:d} ORDER BY l.leaf_index")


def read_leafless() -> Iterator[RawEvent]:
    """Yield all events that have no leaf, by id. It reads the whole index of the trail."""
    return _read(f"{_OF_EVENT} WHERE l.event_id IS NULL ORDER BY e.id", planned=False)


def read_event(id_: uuid.UUID) -> RawEvent | None:
    """Return the event of that id; None when there is none."""
    return next(_read(f"{_OF_EVENT} WHERE e.id = {_literal(id_)}"), None)


def mac_checker() -> Callable[[str, bytes], bytes | None]:
    """Return what computes the MAC over canonical bytes by the id of its key; None for a key that is not configured.

    The same as `events.compute_mac`, with the work for each key done once: a verification makes millions.
    Raises: KeyMissing. Spec: RFC 2104.
    """
    started = {key.id: _start(key.material) for key in keyring.keys("AUDIT_MAC_KEYS")}

    def compute(key_id: str, canonical: bytes) -> bytes | None:
        if key_id not in started:
            return None
        inner, outer = started[key_id]
        within, around = inner.copy(), outer.copy()
        within.update(canonical)
        around.update(within.digest())
        return bytes(around.digest())

    return compute


def _start(key: bytes) -> tuple[Any, Any]:
    padded = key.ljust(64, b"\0")
    return sha256(bytes(byte ^ 0x36 for byte in padded)), sha256(bytes(byte ^ 0x5C for byte in padded))


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
        with cursor.copy(f"COPY (SELECT {_COLUMNS} {source}) TO STDOUT (FORMAT BINARY)") as copied:
            copied.set_types(_TYPES)
            yield from map(RawEvent._make, copied.rows())


def _literal(id_: uuid.UUID) -> str:
    return f"'{id_}'" if connections[AUDIT_ALIAS].vendor == "postgresql" else f"'{id_.hex}'"


def _of_sqlite(row: tuple[Any, ...]) -> RawEvent:
    leaf_index, event_id, leaf_hash, mac_key, mac, exists, *values = row
    return RawEvent(
        leaf_index=-1 if leaf_index is None else leaf_index,
        event_id=_id_bytes(event_id),
        leaf_hash=_bytes(leaf_hash),
        mac_key=str(mac_key or ""),
        mac=_bytes(mac),
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
    raw = _id_bytes(text)
    return str(uuid.UUID(bytes=raw)) if len(raw) == 16 else str(text)


def _id_bytes(text: Any) -> bytes:
    try:
        return uuid.UUID(hex=text).bytes
    except (AttributeError, TypeError, ValueError):
        return repr(text).encode("utf-8", "surrogatepass")


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else b""
