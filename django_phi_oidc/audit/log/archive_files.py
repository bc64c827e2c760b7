"""The archives that were written, and the look-up of an event that is only in one of them."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import AuditUnavailable, KeyMissing
from .. import conf
from ..errors import CheckpointInvalid, LogDamaged, ProofInvalid
from ..events import find_event, is_restore_event
from ..merkle.checkpoint import Checkpoint, LogKey
from ..models import AuditEvent
from ..partitions import list_gaps
from ..search import find_oldest_event_id
from ..storage import translate_database_errors
from ..trusted_transaction import trusted_transaction
from .archive import LogArchive, find_verified_event, verify_sealed_event
from .models import ArchiveFile
from .ranges import find_newest_checkpoint
from .signing_keys import get_public_keys

MAX_LISTED_FILES = 60
"""Five years of one a month."""
MAX_READ_EVENTS = 500_000
"""Limit of the archives that a request reads. `audit prove` reads larger ones."""
_HIGHEST_ID = uuid.UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedEvent:
    """An event that was read from an archive, and is under its signed checkpoint."""

    event: AuditEvent
    """Without its MAC."""
    file: ArchiveFile


def register_archive(archive: LogArchive, *, sha256: str) -> None:
    """Store where the events of a verified archive are."""
    fields = {name: getattr(archive, name) for name in ("tree_size", "first_id", "last_id")}
    fields |= {"name": archive.path.name, "first_leaf": archive.first_leaf_index}
    fields["restore_events"] = [
        (leaf_index, canonical.decode()) for leaf_index, canonical in archive.restore_events
    ]
    ArchiveFile.objects.update_or_create(sha256=sha256, defaults=fields)


def register_missing_archives(verified: Sequence[LogArchive]) -> None:
    """Register the archives that are not registered, such as those of earlier versions. Raises:
    OSError.
    """
    for archive in verified:
        if not ArchiveFile.objects.filter(
            first_leaf=archive.first_leaf_index, tree_size=archive.tree_size
        ).exists():
            with archive.path.open("rb") as file:
                register_archive(archive, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def list_restore_events(
    keys: Sequence[LogKey], known: Sequence[tuple[int, bytes]] = ()
) -> list[tuple[int, bytes]]:
    """Return leaf index and canonical bytes of the `audit.restored` events that are in archives.

    known: those of archives that were verified. Of the others, only those that the stored nodes
    prove to be under the newest checkpoint. Raises: AuditUnavailable, also if a tile that such a
    proof needs can't be read.
    """
    stored = ArchiveFile.objects.exclude(restore_events=[]).values_list("restore_events", flat=True)
    known_indexes = {leaf_index for leaf_index, _ in known}
    # The rows are not trusted: they may have anything.
    pairs = []
    for items in stored:
        if isinstance(items, list):
            for item in items:
                if _is_pair(item):
                    pairs.append(item)
    events = []
    for index, text in pairs:
        if index not in known_indexes:
            events.append((index, text.encode("utf-8", "replace")))
    with translate_database_errors(), trusted_transaction():
        newest = None
        if events:
            newest = find_newest_checkpoint(keys)
        restore_events = list(known)
        for event in events:
            if newest and _is_sealed_restore_event(*event, newest):
                restore_events.append(event)
        return restore_events


def _is_pair(item: object) -> bool:
    match item:
        case [int(), str()]:
            return True
    return False


def _is_sealed_restore_event(leaf_index: int, canonical: bytes, checkpoint: Checkpoint) -> bool:
    try:
        verify_sealed_event(canonical, leaf_index, checkpoint)
    except (LogDamaged, ProofInvalid, ValueError):
        return False
    return is_restore_event(canonical)


def list_archive_files(first: uuid.UUID, last: uuid.UUID) -> list[ArchiveFile]:
    """Return the archives that may have events that the log lacks, with ids from first to last, the
    oldest first.

    At most MAX_LISTED_FILES, the newest ones.
    Two queries, or one if there are no archives. Raises: AuditUnavailable.
    """
    files = list(
        ArchiveFile.objects.filter(first_id__lte=last, last_id__gte=first).order_by("first_leaf")
    )
    if not files:
        return []
    with translate_database_errors():
        gaps = list_gaps() or [(uuid.UUID(int=0), find_oldest_event_id() or _HIGHEST_ID)]

    listed = []
    for file in files:
        if _has_gap(max(first, file.first_id), min(last, file.last_id), gaps):
            listed.append(file)
    return listed[-MAX_LISTED_FILES:]


def _has_gap(
    first: uuid.UUID, last: uuid.UUID, gaps: Sequence[tuple[uuid.UUID, uuid.UUID]]
) -> bool:
    """Return whether one of the gaps has ids from first to last."""
    return any(first < end and last >= start for start, end in gaps)


def read_archived_event(event_id: uuid.UUID, files: Sequence[ArchiveFile]) -> ArchivedEvent | None:
    """Return the event from the declared folder; None if there is none, or no file has it as it was
    sealed.

    Also None if what proves it, such as a tile, can't be read now.
    """
    folder = conf.archive_folder()
    left = MAX_READ_EVENTS
    for file in files:
        size = file.tree_size - file.first_leaf
        if folder is None or size > left:
            continue
        left -= size
        try:
            with translate_database_errors():
                canonical = find_verified_event(
                    folder / Path(file.name).name,
                    event_id,
                    get_public_keys(),
                    leaves=(file.first_leaf, file.tree_size),
                )
        except (AuditUnavailable, CheckpointInvalid, KeyMissing, LogDamaged, OSError, ProofInvalid):
            continue
        if canonical and (event := find_event(canonical)):
            return ArchivedEvent(event=AuditEvent(**event._asdict()), file=file)
    return None
