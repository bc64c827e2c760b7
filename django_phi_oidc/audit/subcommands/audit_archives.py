"""Write an archive of the audit log, and detach archived partitions (`phi_oidc audit archive`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.core.management.base import CommandError
from django.db import DatabaseError

from ..._internal import clock
from ..._internal.command_arguments import Options
from ..._internal.command_output import Output, ProgressLine
from ...errors import PhiOidcError
from .. import partitions
from ..events import Action, NewEvent
from ..log import archive as archives
from ..log import archive_files, archive_records, event_removal, leaf_removal, signing_keys
from ..log.cursor import get_newest_tree_size
from ..log.sequencer import append_declaration
from ..merkle.checkpoint import LogKey
from ..models import AuditCheckpoint
from ..partitions import Partition
from ..request_context import current_origin


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removal:
    """What may leave the database after an archive."""

    events: Sequence[Partition] = ()
    """Partitions of events."""
    leaves: Mapping[Partition, Sequence[archive_records.LeafRange]] = field(default_factory=dict)
    """Partitions of leaves, with the leaves of each."""
    detached_leaves: Sequence[str] = ()
    """What the event of the archive states, also of partitions that were detached before."""
    text: str = ""
    """Why a partition stays; empty without a reason."""
    fault: str = ""

    @property
    def names(self) -> list[str]:
        return [partition.name for partition in (*self.events, *self.leaves)]


def write_archive(options: Options, output: Output) -> None:
    """Write and record an archive, then detach what may leave.

    Raises: CommandError; KeyMissing without the signing key, before anything is written.
    """
    signing_key = signing_keys.get_signing_key()
    keys = signing_keys.get_public_keys(signing_key)
    size = _find_size(options["before"])
    earlier = archive_records.read_archive_record(keys)
    newest_leaf = get_newest_tree_size() - 1
    archived_size = earlier.archived_size

    if options["first"] is None:
        first = archived_size
    else:
        first = options["first"]

    if options["detach"] and first > archived_size:
        raise CommandError(
            f"Nothing is detached: the leaves {archived_size} to {first - 1} are in no archive."
        )
    path = options["file"]
    with ProgressLine(output, "events archived") as progress:
        digest = archives.write_archive(
            path, first_leaf_index=first, tree_size=size, progress=progress
        )
    archive = archives.verify_archive(path, keys)
    removal = _Removal(detached_leaves=archive_records.build_detached_leaves(earlier, {}))
    if options["detach"]:
        removal = _find_removal(archive, earlier, keys, now=clock.now())
    detail = {"first": first, "tree_size": size, "sha256": digest}
    # An archive behind a gap leaves events that are in no archive.
    if first <= archived_size:
        detail["archived_size"] = max(archived_size, size)
    else:
        detail["archived_size"] = archived_size

    lists = {
        "detached": [partition.suffix for partition in removal.events],
        "detached_leaves": removal.detached_leaves,
    }
    archived = NewEvent(
        Action.AUDIT_ARCHIVED,
        origin=current_origin(),
        now=clock.now(),
        detail=detail | {name: items for name, items in lists.items() if items},
    )
    append_declaration(archived, key=signing_key)
    archive_files.register_archive(archive, sha256=digest)
    for partition in removal.events:
        partitions.detach_partition(partition, newest_leaf=newest_leaf)
    for partition, ranges in removal.leaves.items():
        partitions.detach_leaves(partition, end_leaf=ranges[-1][1])
    row = {"file": str(path), **detail, "detached": removal.names}
    text = f"{path}: leaves {first} to {size - 1}, SHA-256 {digest}."
    if options["detach"]:
        text += f" Detached: {', '.join(removal.names) or 'none'}.{removal.text}"
    output.confirm(row, text, fault=removal.fault)


def _find_size(before: datetime | None) -> int:
    """Return the size of the newest checkpoint, or of the newest from before a time."""
    checkpoints = AuditCheckpoint.objects.order_by("-tree_size")
    if before:
        checkpoints = checkpoints.filter(sealed_at__lt=before)
    size: int | None = checkpoints.values_list("tree_size", flat=True).first()
    if size is None:
        raise CommandError("There is no checkpoint from before that time.")
    return size


def _find_removal(
    archive: archives.LogArchive,
    earlier: archive_records.ArchiveRecord,
    keys: Sequence[LogKey],
    *,
    now: datetime,
) -> _Removal:
    try:
        removable, text = event_removal.list_removable_partitions(archive, keys=keys, now=now)
        leaves, leaf_text = leaf_removal.list_removable_leaves(
            archive, removed=removable, keys=keys, now=now
        )
        return _Removal(
            events=removable,
            leaves=leaves,
            detached_leaves=archive_records.build_detached_leaves(earlier, leaves),
            text=text + leaf_text,
        )
    except (LookupError, OSError, PhiOidcError, DatabaseError) as error:
        return _Removal(
            detached_leaves=archive_records.build_detached_leaves(earlier, {}),
            fault=f"Nothing is detached: {error}",
        )
