"""The sealed order, read from where a cursor stands: leaf by leaf, and behind the last that it covers each checkpoint.

Nothing is ever skipped: a leaf without its event, and a log that is another than the one that was delivered, stop the
sink with a fault and an alert.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from ..audit.events import OUTCOMES
from ..audit.formats.items import LogItem, SealedCheckpoint, SealedEvent
from ..audit.models import AuditCheckpoint, AuditEvent, AuditLeaf
from ..audit.router import AUDIT_ALIAS
from ..audit.storage import UNLOADABLE_ROW_ERRORS, parse_event_row, translate_database_errors
from .models import SinkCursor


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPosition:
    """Where delivery goes on: leaves from tree_size, checkpoints above checkpoint_size; as a cursor has it."""

    tree_size: int
    checkpoint_size: int
    leaf_hash: bytes
    root_hash: bytes
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryBatch:
    """What is to be sent next, in order."""

    position: DeliveryPosition | None = None
    """Where items begin, and where the cursor is to be set back to when that is not where it stands."""
    items: tuple[LogItem, ...] = ()
    fault: str = ""
    """A code, when the log can't be read on behind the items."""


def get_next_batch(cursor: SinkCursor, *, limit: int) -> DeliveryBatch:
    """Return up to limit items that come next for cursor. Raises: AuditUnavailable."""
    try:
        with translate_database_errors():
            place = _get_position(cursor)
            return place if isinstance(place, DeliveryBatch) else _read_items(place, limit=limit)
    except UNLOADABLE_ROW_ERRORS:
        # Some row of these can be no event. One at a time, those before it still go out.
        return get_next_batch(cursor, limit=1) if limit > 1 else DeliveryBatch(fault="event_unreadable")


def find_oldest_undelivered_time(cursor: SinkCursor) -> datetime | None:
    """Return when the oldest item that cursor's sink does not have was sealed; None when it has all.

    Not when it occurred: an event that waited elsewhere is no delay of the sink's. Raises: AuditUnavailable.
    """
    with translate_database_errors():
        ahead = AuditCheckpoint.objects.using(AUDIT_ALIAS).filter(tree_size__gt=cursor.checkpoint_size)
        return ahead.order_by("tree_size").values_list("sealed_at", flat=True).first()


def get_newest_tree_size() -> int:
    """Return how many leaves there are to deliver. Raises: AuditUnavailable."""
    with translate_database_errors():
        sizes = AuditCheckpoint.objects.using(AUDIT_ALIAS).order_by("-tree_size").values_list("tree_size", flat=True)
        return sizes.first() or 0


def _get_position(cursor: SinkCursor) -> DeliveryPosition | DeliveryBatch:
    """Return where to go on, having looked whether the log is the one that was delivered.

    A restored database is behind. When its operator has declared a new epoch, delivery goes back to where that begins;
    when the sealer went on by itself, no checkpoint of what was lost is outside, and delivery goes back to the last
    one that is.
    """
    newest = AuditCheckpoint.objects.using(AUDIT_ALIAS).order_by("-tree_size").first()
    if newest is None:
        return DeliveryBatch(fault="log_behind_sink") if cursor.tree_size else DeliveryBatch()
    is_behind = newest.tree_size < cursor.tree_size
    if not is_behind and _last_leaf_hash(cursor.tree_size) == bytes(cursor.leaf_hash):
        return DeliveryPosition(
            tree_size=cursor.tree_size,
            checkpoint_size=cursor.checkpoint_size,
            leaf_hash=bytes(cursor.leaf_hash),
            root_hash=bytes(cursor.root_hash),
            epoch=cursor.epoch,
        )
    checkpoints = AuditCheckpoint.objects.using(AUDIT_ALIAS).order_by("-tree_size")
    if 0 < cursor.epoch < newest.epoch:
        return _position_after(checkpoints.filter(epoch__lte=cursor.epoch).first())
    if is_behind:
        return DeliveryBatch(fault="log_behind_sink")
    last = checkpoints.filter(tree_size=cursor.checkpoint_size).first()
    if cursor.checkpoint_size == 0 or (last and bytes(last.root_hash) == bytes(cursor.root_hash)):
        return _position_after(last)
    return DeliveryBatch(fault="log_forked")


def _position_after(checkpoint: AuditCheckpoint | None) -> DeliveryPosition:
    """Return the position right behind checkpoint, or the beginning."""
    if checkpoint is None:
        return DeliveryPosition(tree_size=0, checkpoint_size=0, leaf_hash=b"", root_hash=b"", epoch=0)
    size = checkpoint.tree_size
    return DeliveryPosition(
        tree_size=size,
        checkpoint_size=size,
        leaf_hash=_last_leaf_hash(size),
        root_hash=bytes(checkpoint.root_hash),
        epoch=checkpoint.epoch,
    )


def _read_items(position: DeliveryPosition, *, limit: int) -> DeliveryBatch:
    ahead = AuditCheckpoint.objects.using(AUDIT_ALIAS).filter(tree_size__gt=position.checkpoint_size)
    checkpoints = list(ahead.order_by("tree_size")[:limit])
    if not checkpoints:
        return DeliveryBatch(position=position)
    until = min(checkpoints[-1].tree_size, position.tree_size + limit)
    leaves = AuditLeaf.objects.using(AUDIT_ALIAS).filter(leaf_index__gte=position.tree_size, leaf_index__lt=until)
    by_index = {leaf.leaf_index: leaf for leaf in leaves}
    rows = AuditEvent.objects.using(AUDIT_ALIAS).in_bulk([leaf.event_id for leaf in by_index.values()])
    items: list[LogItem] = []
    index = position.tree_size
    for checkpoint in checkpoints:
        while index < checkpoint.tree_size and len(items) < limit:
            leaf = by_index.get(index)
            row = rows.get(leaf.event_id) if leaf else None
            if leaf is None or row is None or not _is_readable(row):
                fault = "event_missing" if row is None else "event_unreadable"
                return DeliveryBatch(position=position, items=tuple(items), fault=fault)
            items.append(
                SealedEvent(leaf_index=index, leaf_hash=bytes(leaf.leaf_hash), authenticated_event=parse_event_row(row))
            )
            index += 1
        if len(items) == limit:
            break
        items.append(_checkpoint_from_row(checkpoint))
    return DeliveryBatch(position=position, items=tuple(items))


def _is_readable(row: AuditEvent) -> bool:
    """Say whether any format can tell of the row. NOT checked: its MAC, which the sealer has checked."""
    try:
        return isinstance(json.loads(row.detail), dict) and row.outcome in OUTCOMES
    except (ValueError, RecursionError):
        return False


def _checkpoint_from_row(row: AuditCheckpoint) -> SealedCheckpoint:
    return SealedCheckpoint(
        tree_size=row.tree_size,
        root_hash=bytes(row.root_hash),
        epoch=row.epoch,
        sealed_at=row.sealed_at,
        note=row.note,
    )


def _last_leaf_hash(tree_size: int) -> bytes:
    """Return the hash of the last of tree_size leaves; empty when there is none."""
    leaf = AuditLeaf.objects.using(AUDIT_ALIAS).filter(leaf_index=tree_size - 1).first()
    return bytes(leaf.leaf_hash) if leaf else b""
