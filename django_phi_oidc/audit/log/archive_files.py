"""The archives that were written, and the look-up of an event that is only in one of them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import conf
from ...errors import CheckpointInvalid, KeyMissing, ProofInvalid
from ..events import find_event
from ..models import AuditEvent
from ..partitions import list_gaps
from ..search import find_oldest_event_id
from ..storage import translate_database_errors
from .archive import LogArchive, find_verified_event
from .models import ArchiveFile
from .signing_keys import get_public_keys
from .tree_storage import LogDamaged

MAX_READ_EVENTS = 500_000
"""Of archives in a request. Larger ones are read by `audit prove`."""
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
    ArchiveFile.objects.update_or_create(sha256=sha256, defaults=fields)


def list_archive_files(first: uuid.UUID, last: uuid.UUID) -> list[ArchiveFile]:
    """Return the archives that may have events with ids from first to last which the log has not, the oldest first.

    Two queries, or one if there are no archives. Raises: AuditUnavailable.
    """
    files = list(ArchiveFile.objects.filter(first_id__lte=last, last_id__gte=first).order_by("first_leaf"))
    if not files:
        return []
    with translate_database_errors():
        gaps = list_gaps() or [(uuid.UUID(int=0), find_oldest_event_id() or _HIGHEST_ID)]
    return [
        file
        for file in files
        if any(max(first, file.first_id) < end and min(last, file.last_id) >= start for start, end in gaps)
    ]


def read_archived_event(event_id: uuid.UUID, files: Sequence[ArchiveFile]) -> ArchivedEvent | None:
    """Return the event from the declared folder; None if there is none, or no file has it as it was sealed.

    Raises: AuditUnavailable.
    """
    folder, left = conf.archive_folder(), MAX_READ_EVENTS
    for file in files:
        size = file.tree_size - file.first_leaf
        if folder is None or size > left:
            continue
        left -= size
        try:
            with translate_database_errors():
                canonical = find_verified_event(
                    folder / Path(file.name).name, event_id, get_public_keys(), leaves=(file.first_leaf, file.tree_size)
                )
        except (CheckpointInvalid, KeyMissing, LogDamaged, OSError, ProofInvalid):
            continue
        if canonical and (event := find_event(canonical)):
            return ArchivedEvent(event=AuditEvent(**event._asdict()), file=file)
    return None
