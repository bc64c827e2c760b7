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
from ..models import AuditCheckpoint, AuditLeaf
from ..router import AUDIT_ALIAS
from ..storage import UNLOADABLE_ROW_ERRORS, translate_database_errors
from .reader import UUID_BYTES, RawEvent, read_leaves
from .tree_storage import find_leaf_hashes

MAX_UNREADABLE = 100
"""Events of a batch that a sink goes on without."""
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
class UnreadableEvent:
    """A leaf whose event is missing, or is no event any more."""

    leaf_index: int
    leaf_hash: bytes
    event_id: uuid.UUID
    error: str
    """A code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemBatch:
    """The next items in order: events, and each checkpoint after the last event that it covers."""

    position: DeliveryPosition | None = None
    """Where items begin. After a restore of the log it is an earlier position than the one asked
    for.
    """
    items: tuple[LogItem | UnreadableEvent, ...] = ()
    fault: str = ""
    """A code, when the log cannot be read beyond items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentEvent:
    """An event, and the time between the two checkpoints in which it was sealed."""

    event: Event
    sealed_after: datetime | None
    """When the last checkpoint without the event was sealed; None: the log had none."""
    sealed_at: datetime
    """When the first checkpoint with the event was sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seal:
    """When a checkpoint was sealed, and the one before it."""

    tree_size: int
    sealed_after: datetime | None
    sealed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """The next events, and the position after them."""

    tree_size: int
    leaf_hash: bytes
    sealed_at: datetime | None
    events: Sequence[RecentEvent] = ()
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
        if end == tree_size and not is_log_replaced:
            return None
        seals = _read_seals(tree_size, end)
        if seals:
            sealed_at = seals[-1].sealed_at
        events, altered_event_ids = _check_leaves(tree_size, end, seals)
        return EventBatch(
            tree_size=end,
            leaf_hash=_get_last_leaf_hash(end),
            sealed_at=sealed_at,
            events=events,
            altered_event_ids=altered_event_ids,
            is_log_replaced=is_log_replaced,
        )


def find_sealed_event(event_id: uuid.UUID) -> SealedEvent | UnreadableEvent | None:
    """Return the event with its leaf; None if the log has no leaf of it. Raises:
    AuditUnavailable.
    """
    with translate_database_errors():
        leaf = AuditLeaf.objects.using(AUDIT_ALIAS).filter(event_id=event_id).first()
        if leaf is None:
            return None
        for raw, event in _read_parsed_leaves(leaf.leaf_index, leaf.leaf_index + 1):
            return _build_item(raw, event)
    return None


def find_recent_event(event_id: uuid.UUID) -> RecentEvent | None:
    """Return the event; None if the log has no leaf of it, or it is not what was sealed. Raises:
    AuditUnavailable.
    """
    with translate_database_errors():
        leaf = AuditLeaf.objects.using(AUDIT_ALIAS).filter(event_id=event_id).first()
        if leaf is None:
            return None
        end = leaf.leaf_index + 1
        events, _altered_ids = _check_leaves(
            leaf.leaf_index, end, _read_seals(leaf.leaf_index, end)
        )
        if events:
            return events[0]
    return None


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
    items: list[LogItem | UnreadableEvent] = []
    index = position.tree_size
    for checkpoint in checkpoints:
        while index < checkpoint.tree_size and len(items) < limit:
            raw, event = leaves.get(index, (None, None))
            if raw is None:
                return ItemBatch(position=position, items=tuple(items), fault="event_missing")
            items.append(_build_item(raw, event))
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
    return _limit_unreadable(ItemBatch(position=position, items=tuple(items)))


def _limit_unreadable(batch: ItemBatch) -> ItemBatch:
    """Return the batch; only the items before the first unreadable event, with a fault, if there
    are more than MAX_UNREADABLE: then a part of the log is gone.
    """
    unreadable = []
    for index, item in enumerate(batch.items):
        if isinstance(item, UnreadableEvent):
            unreadable.append((index, item.error))
    if len(unreadable) <= MAX_UNREADABLE:
        return batch
    first_index, error = unreadable[0]
    return ItemBatch(position=batch.position, items=batch.items[:first_index], fault=error)


def _build_item(raw: RawEvent, event: Event | None) -> SealedEvent | UnreadableEvent:
    # NOT checked: the MAC and the leaf hash, which the sealer has checked.
    if event is not None:
        return SealedEvent(
            leaf_index=raw.leaf_index,
            leaf_hash=raw.leaf_hash,
            authenticated_event=AuthenticatedEvent(event, raw.mac),
        )
    if raw.canonical is None:
        error = "event_missing"
    else:
        error = "event_unreadable"
    return UnreadableEvent(
        leaf_index=raw.leaf_index,
        leaf_hash=raw.leaf_hash,
        event_id=_parse_event_id(raw),
        error=error,
    )


def _parse_event_id(raw: RawEvent) -> uuid.UUID:
    """Return the id of the event of a leaf; _NO_ID for bytes that only SQLite stores."""
    if len(raw.event_id) == UUID_BYTES:
        return uuid.UUID(bytes=raw.event_id)
    return _NO_ID


def _read_seals(start: int, end: int) -> list[_Seal]:
    """Return the checkpoints that cover the leaves from start to end, in order."""
    sealed_after = (
        _checkpoints().filter(tree_size__lte=start).values_list("sealed_at", flat=True).last()
    )
    last_size = (
        _checkpoints().filter(tree_size__gte=end).values_list("tree_size", flat=True).first()
    )
    covering = _checkpoints().filter(tree_size__gt=start, tree_size__lte=last_size or end)
    seals = []
    for tree_size, sealed_at in covering.values_list("tree_size", "sealed_at"):
        seals.append(_Seal(tree_size=tree_size, sealed_after=sealed_after, sealed_at=sealed_at))
        sealed_after = sealed_at
    return seals


def _check_leaves(
    start: int, end: int, seals: Sequence[_Seal]
) -> tuple[list[RecentEvent], list[uuid.UUID]]:
    """Return the events that are what was sealed, and the ids of the others. A missing leaf has no
    id.
    """
    events: list[RecentEvent] = []
    altered: list[uuid.UUID] = []
    remaining_seals = iter(seals)
    seal = next(remaining_seals, None)
    for raw, event in _read_parsed_leaves(start, end):
        while seal is not None and raw.leaf_index >= seal.tree_size:
            seal = next(remaining_seals, None)
        if seal is None:
            # The checkpoint was deleted while this was read. The leaf counts as missing.
            break
        if event is not None and hash_leaf(raw.canonical or b"") == raw.leaf_hash:
            recent_event = RecentEvent(
                event=event, sealed_after=seal.sealed_after, sealed_at=seal.sealed_at
            )
            events.append(recent_event)
        else:
            altered.append(_parse_event_id(raw))
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
