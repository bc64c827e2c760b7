"""Read the sealed log onward from a cursor: items for the SIEM sinks, events for the anomaly rules.

The hash of the last leaf read shows whether the log is still the same one. No leaf is skipped
without a fault.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from ..events import AuthenticatedEvent, Event, find_event
from ..formats.items import LogItem, SealedCheckpoint, SealedEvent
from ..merkle.rfc6962 import hash_leaf
from ..models import AuditCheckpoint
from ..router import AUDIT_ALIAS
from ..storage import UNLOADABLE_ROW_ERRORS, translate_database_errors
from .reader import RawEvent, read_leaves
from .tree_storage import find_leaf_hashes

_NO_ID = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class DeliveryPosition:
    """Where delivery continues: leaves from tree_size, checkpoints above checkpoint_size."""

    tree_size: int = 0
    checkpoint_size: int = 0
    leaf_hash: bytes = b""
    root_hash: bytes = b""
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemBatch:
    """The next items in order: events, and each checkpoint after the last event that it covers."""

    position: DeliveryPosition | None = None
    """Where items begin. After a restore of the log it is an earlier position than the one asked
    for.
    """
    items: tuple[LogItem, ...] = ()
    fault: str = ""
    """A code, when the log cannot be read beyond items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """The next events, and the position after them."""

    tree_size: int
    leaf_hash: bytes
    sealed_at: datetime | None
    events: Sequence[Event] = ()
    altered_event_ids: Sequence[uuid.UUID] = ()
    """Ids of events that are missing, or that differ from what was sealed."""
    is_log_replaced: bool = False
    """The log is another one than before: reading continues after what was sealed before the last
    leaf read.
    """


def read_items(position: DeliveryPosition, *, limit: int) -> ItemBatch:
    """Return up to limit items after position. Raises: AuditUnavailable."""
    try:
        with translate_database_errors():
            start = _find_start(position)
            if isinstance(start, str):
                return ItemBatch(fault=start)
            return _read_items(start, limit=limit)
    except UNLOADABLE_ROW_ERRORS:
        # A checkpoint row cannot be loaded. One at a time, the items before it are still delivered.
        if limit > 1:
            return read_items(position, limit=1)
        return ItemBatch(fault="event_unreadable")


def read_events(
    tree_size: int, leaf_hash: bytes, sealed_at: datetime | None, *, limit: int
) -> EventBatch | None:
    """Return the events of up to limit leaves after tree_size; None if there are none. Raises:
    AuditUnavailable.

    leaf_hash, sealed_at: of the last leaf read before.
    """
    with translate_database_errors():
        is_log_replaced = tree_size > 0 and _get_last_leaf_hash(tree_size) != leaf_hash
        if is_log_replaced:
            # A backup has only checkpoints from before it was made, so nothing that was sealed
            # since is skipped.
            known = _checkpoints().filter(sealed_at__lte=sealed_at).last()
            if known:
                tree_size = min(tree_size, known.tree_size)
            else:
                tree_size = 0
        end = min(get_newest_tree_size(), tree_size + limit)
        if end > tree_size:
            sealed_at = (
                _checkpoints()
                .filter(tree_size__gte=end)
                .values_list("sealed_at", flat=True)
                .first()
            )
        elif not is_log_replaced:
            return None
        events, altered_event_ids = _check_leaves(tree_size, end)
        return EventBatch(
            tree_size=end,
            leaf_hash=_get_last_leaf_hash(end),
            sealed_at=sealed_at,
            events=events,
            altered_event_ids=altered_event_ids,
            is_log_replaced=is_log_replaced,
        )


def find_oldest_sealing_time(checkpoint_size: int) -> datetime | None:
    """Return when the first checkpoint above checkpoint_size was sealed; None if there is none.

    This is the time of sealing, not of the event: an event that waited in the outbox is no delay of
    a sink.
    Raises: AuditUnavailable.
    """
    with translate_database_errors():
        ahead = _checkpoints().filter(tree_size__gt=checkpoint_size)
        return ahead.values_list("sealed_at", flat=True).first()


def get_newest_tree_size() -> int:
    """Return how many leaves the newest checkpoint covers. Raises: AuditUnavailable."""
    with translate_database_errors():
        return _checkpoints().values_list("tree_size", flat=True).last() or 0


def _find_start(position: DeliveryPosition) -> DeliveryPosition | str:
    """Return where to continue, after a check that the log is the one that was delivered; a fault
    if it is not.

    A restored database is behind. When its operator has declared a new epoch, delivery goes back to
    where that begins. When the sealer continued without one, no checkpoint of the lost part was
    delivered, and delivery goes back to the last checkpoint that was.
    """
    newest = _checkpoints().last()
    is_behind = (newest.tree_size if newest else 0) < position.tree_size
    if not is_behind and _get_last_leaf_hash(position.tree_size) == position.leaf_hash:
        return position
    if newest and 0 < position.epoch < newest.epoch:
        return _position_after(_checkpoints().filter(epoch__lte=position.epoch).last())
    if is_behind:
        return "log_behind_sink"
    last = _checkpoints().filter(tree_size=position.checkpoint_size).first()
    if position.checkpoint_size == 0 or (last and bytes(last.root_hash) == position.root_hash):
        return _position_after(last)
    return "log_forked"


def _position_after(checkpoint: AuditCheckpoint | None) -> DeliveryPosition:
    if checkpoint is None:
        return DeliveryPosition()
    size = checkpoint.tree_size
    root_hash = bytes(checkpoint.root_hash)
    return DeliveryPosition(size, size, _get_last_leaf_hash(size), root_hash, checkpoint.epoch)


def _read_items(position: DeliveryPosition, *, limit: int) -> ItemBatch:
    checkpoints = list(_checkpoints().filter(tree_size__gt=position.checkpoint_size)[:limit])
    if not checkpoints:
        return ItemBatch(position=position)
    end = min(checkpoints[-1].tree_size, position.tree_size + limit)
    leaves: dict[int, tuple[RawEvent, Event | None]] = {}
    for leaf, parsed_event in _read_parsed_leaves(position.tree_size, end):
        leaves[leaf.leaf_index] = (leaf, parsed_event)
    items: list[LogItem] = []
    index = position.tree_size
    for checkpoint in checkpoints:
        while index < checkpoint.tree_size and len(items) < limit:
            raw, event = leaves.get(index, (None, None))
            # NOT checked: the MAC and the leaf hash, which the sealer has checked.
            if raw is None or event is None:
                if raw is None or raw.canonical is None:
                    fault = "event_missing"
                else:
                    fault = "event_unreadable"
                return ItemBatch(position=position, items=tuple(items), fault=fault)
            authentic = AuthenticatedEvent(event, raw.mac)
            items.append(
                SealedEvent(
                    leaf_index=index, leaf_hash=raw.leaf_hash, authenticated_event=authentic
                )
            )
            index += 1
        if len(items) == limit:
            break
        sealed_checkpoint = SealedCheckpoint(
            tree_size=checkpoint.tree_size,
            root_hash=bytes(checkpoint.root_hash),
            epoch=checkpoint.epoch,
            sealed_at=checkpoint.sealed_at,
            note=checkpoint.note,
        )
        items.append(sealed_checkpoint)
    return ItemBatch(position=position, items=tuple(items))


def _check_leaves(start: int, end: int) -> tuple[list[Event], list[uuid.UUID]]:
    """Return the events that are what was sealed, and the ids of the others. A missing leaf has no
    id.
    """
    events: list[Event] = []
    altered: list[uuid.UUID] = []
    for raw, event in _read_parsed_leaves(start, end):
        if event is not None and hash_leaf(raw.canonical or b"") == raw.leaf_hash:
            events.append(event)
        else:
            altered.append(uuid.UUID(bytes=raw.event_id) if len(raw.event_id) == 16 else _NO_ID)
    missing_count = end - start - len(events) - len(altered)
    return events, altered + [_NO_ID] * missing_count


def _read_parsed_leaves(start: int, end: int) -> Iterator[tuple[RawEvent, Event | None]]:
    return ((raw, find_event(raw.canonical or b"")) for raw in read_leaves(start, end))


def _checkpoints() -> QuerySet[AuditCheckpoint]:
    return AuditCheckpoint.objects.using(AUDIT_ALIAS).order_by("tree_size")


def _get_last_leaf_hash(tree_size: int) -> bytes:
    """Return the hash of the last of tree_size leaves; empty if there is none."""
    if tree_size > 0:
        return find_leaf_hashes(tree_size - 1, tree_size).get(tree_size - 1, b"")
    return b""
