"""Which partitions of events may leave the database: those of past months whose events are all in
archives.

What the log says about archives is not enough: the files are read, and the nodes of the log prove
that they have its leaves.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from .. import conf
from ..errors import CheckpointInvalid, ProofInvalid
from ..events import MAX_ITEMS
from ..merkle.checkpoint import LogKey
from ..merkle.proof import compute_root_at_size
from ..models import ArchiveFile
from ..partition_contents import find_leaves_of_events
from ..partitions import Partition, list_past_partitions
from .archive import LogArchive, verify_archive
from .cosigned_checkpoints import find_seen_place
from .cursor import get_newest_tree_size
from .signing_keys import find_epoch
from .tree_storage import read_nodes


def list_removable_partitions(
    archive: LogArchive, *, keys: Sequence[LogKey], now: datetime
) -> tuple[list[Partition], str]:
    """Return the partitions of past months whose events are all in archives, of which this one is
    the last, and a sentence why one stays.

    Only as many, the oldest first, as one event can name. Earlier archives are read as far as they
    have events of such a partition. They are in the folder of this one, or in AUDIT['archives'].
    Requires: the archive was verified.
    Raises: LookupError if a checkpoint of that size is not known outside although others are, or
    lacks a declared quorum, or an event is unsealed; SealingRefused if the witness file cannot be
    read.
    """
    seen = find_seen_place(keys)
    if seen is not None and seen < (find_epoch(archive.origin) or 0, archive.tree_size):
        raise LookupError(
            f"The checkpoint of {archive.tree_size} events is not "
            "known outside yet: try again later."
        )
    first_leaves: dict[Partition, int] = {}
    for partition in list_past_partitions(now=now):
        leaves = find_leaves_of_events(partition)
        if leaves.leafless_count:
            raise LookupError(
                f"{partition.name} has {leaves.leafless_count} events that "
                "are not sealed: run `audit verify`."
            )
        if 0 <= leaves.last < archive.tree_size:
            first_leaves[partition] = leaves.first
    if not first_leaves:
        return [], ""
    proved_from = _find_first_archived_leaf(
        archive, needed_leaf=min(first_leaves.values()), keys=keys
    )
    removable = []
    reason = ""
    for partition, first_leaf in first_leaves.items():
        if first_leaf >= proved_from:
            removable.append(partition)
        else:
            reason = (
                f" {partition.name} stays: the archive that ends with leaf {proved_from - 1} is "
                f"not in the folder of {archive.path.name}, or does not have what was sealed."
            )
    removable.sort(key=lambda partition: str(partition.end_id))
    return removable[:MAX_ITEMS], reason


def _find_first_archived_leaf(
    archive: LogArchive, *, needed_leaf: int, keys: Sequence[LogKey]
) -> int:
    """Return the leaf from which on files have all events up to the end of the archive.

    Stops at needed_leaf, so that no more files are read than necessary.
    """
    first_leaf = archive.first_leaf_index
    while first_leaf > needed_leaf:
        earlier = _find_archive_before(first_leaf, beside=archive.path, keys=keys)
        if earlier is None:
            break
        first_leaf = earlier.first_leaf_index
    return first_leaf


def _find_archive_before(
    leaf_index: int, *, beside: Path, keys: Sequence[LogKey]
) -> LogArchive | None:
    """Return a verified archive of this log with the leaf before leaf_index; None without one."""
    tree_size = get_newest_tree_size()
    for path in _list_paths(leaf_index, beside=beside):
        try:
            archive = verify_archive(path, keys)
        except (CheckpointInvalid, OSError, ProofInvalid):
            continue
        has_leaf = archive.first_leaf_index < leaf_index <= archive.tree_size
        # An archive from before a restore may be of a longer log.
        if not has_leaf or archive.tree_size > tree_size:
            continue
        if compute_root_at_size(archive.tree_size, read_nodes) == archive.root_hash:
            return archive
    return None


def _list_paths(leaf_index: int, *, beside: Path) -> Iterator[Path]:
    """Yield files that may have the leaf before leaf_index, the one with the most leaves first.

    The rows are not trusted: they only say which files to read.
    """
    folders = [beside.parent]
    if (folder := conf.archive_folder()) is not None:
        folders.append(folder)
    rows = ArchiveFile.objects.filter(first_leaf__lt=leaf_index, tree_size__gte=leaf_index)
    for name in rows.order_by("first_leaf").values_list("name", flat=True):
        for folder in folders:
            path = folder / Path(name).name
            if path.is_file():
                # A named pipe would wait for its writer.
                yield path
