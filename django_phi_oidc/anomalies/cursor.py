"""The sealed order, read on from where the rules' cursor stands, and what in it is no longer what was sealed."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..audit.events import Event
from ..audit.log.reader import read_leaves
from ..audit.models import AuditCheckpoint, AuditLeaf
from ..audit.router import AUDIT_ALIAS
from ..audit.storage import translate_database_errors
from ..merkle.rfc6962 import hash_leaf
from .models import WatchCursor

_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """What comes next of the log, and where the cursor stands behind it."""

    tree_size: int
    leaf_hash: bytes
    sealed_at: datetime | None
    events: Sequence[Event] = ()
    altered_event_ids: Sequence[uuid.UUID] = ()
    """Ids of events that are gone, or are not what was sealed."""
    is_log_replaced: bool = False
    """The log is not the one that was read: reading goes on behind what was sealed before the last leaf read."""


def find_next_batch(cursor: WatchCursor, *, limit: int) -> EventBatch | None:
    """Return what comes next, up to limit leaves; None where there is nothing. Raises: AuditUnavailable."""
    with translate_database_errors():
        checkpoints = AuditCheckpoint.objects.using(AUDIT_ALIAS).order_by("tree_size")
        start, before = cursor.tree_size, bytes(cursor.leaf_hash)
        is_another_log = start > 0 and _last_leaf_hash(start) != before
        if is_another_log:
            # A backup has checkpoints of before it alone. So nothing that was sealed since is passed over.
            known = checkpoints.filter(sealed_at__lte=cursor.sealed_at).last()
            start = min(start, known.tree_size) if known else 0
            before = _last_leaf_hash(start)
        newest = checkpoints.last()
        end = min(newest.tree_size if newest else 0, start + limit)
        if end <= start:
            return _empty_batch(start, before, cursor.sealed_at) if is_another_log else None
        covering = checkpoints.filter(tree_size__gte=end).first()
        events, altered = _read_events(start, end)
        return EventBatch(
            tree_size=end,
            leaf_hash=_last_leaf_hash(end),
            sealed_at=covering.sealed_at if covering else None,
            events=events,
            altered_event_ids=altered,
            is_log_replaced=is_another_log,
        )


def _empty_batch(start: int, last_leaf_hash: bytes, sealed_at: datetime | None) -> EventBatch:
    return EventBatch(tree_size=start, leaf_hash=last_leaf_hash, sealed_at=sealed_at, is_log_replaced=True)


def _read_events(start: int, end: int) -> tuple[list[Event], list[uuid.UUID]]:
    events: list[Event] = []
    altered: list[uuid.UUID] = []
    for raw in read_leaves(start, end):
        if raw.canonical and hash_leaf(raw.canonical) == raw.leaf_hash:
            try:
                events.append(_parse_event(json.loads(raw.canonical)))
                continue
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
                pass
        altered.append(uuid.UUID(bytes=raw.event_id) if len(raw.event_id) == 16 else uuid.UUID(int=0))
    # A leaf that is gone has no id any more.
    altered += [uuid.UUID(int=0)] * (end - start - len(events) - len(altered))
    return events, altered


def _parse_event(members: dict[str, Any]) -> Event:
    members["id"] = uuid.UUID(members["id"])
    members["occurred_at"] = datetime.fromisoformat(members["occurred_at"])
    detail = members["detail"]
    members["detail"] = _to_json(detail) if detail.keys() else "{}"
    return Event(**members)


def _last_leaf_hash(tree_size: int) -> bytes:
    """Return the hash of the last of tree_size leaves; empty when there is none."""
    leaf = AuditLeaf.objects.using(AUDIT_ALIAS).filter(leaf_index=tree_size - 1).first()
    return bytes(leaf.leaf_hash) if leaf else b""
