"""Write an archive of the audit log, and detach archived partitions (`phi_oidc audit archive`)."""

from django.core.management.base import CommandError
from django.db import DatabaseError

from ..._internal import clock
from ..._internal.command_arguments import Options
from ..._internal.command_output import Output, ProgressLine
from ...errors import PhiOidcError
from .. import partitions
from ..events import Action
from ..log import archive as archives
from ..log import archive_files, archive_records, leaf_removal, signing_keys
from ..log.cursor import get_newest_tree_size
from ..models import AuditCheckpoint
from ..recorder import record
from ..request_context import current_origin


def write_archive(options: Options, output: Output) -> None:
    """Write and record an archive, then detach what may leave. Raises: CommandError."""
    checkpoints = AuditCheckpoint.objects.order_by("-tree_size")
    if options["before"]:
        checkpoints = checkpoints.filter(sealed_at__lt=options["before"])
    last = checkpoints.first()
    if last is None:
        raise CommandError("There is no checkpoint from before that time.")
    earlier = archive_records.read_archive_record()
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
    size = last.tree_size
    path = options["file"]
    with ProgressLine(output, "events archived") as progress:
        digest = archives.write_archive(
            path, first_leaf_index=first, tree_size=size, progress=progress
        )
    keys = signing_keys.get_public_keys()
    now = clock.now()
    archive = archives.verify_archive(path, keys)
    removable: list[partitions.Partition] = []
    leaves: dict[partitions.Partition, list[archive_records.LeafRange]] = {}
    detached_leaves = archive_records.build_detached_leaves(earlier, {})
    kept = fault = ""
    if options["detach"]:
        try:
            removable = archives.list_removable_partitions(archive, keys=keys, now=now)
            leaves, kept = leaf_removal.list_removable_leaves(
                archive, removed=removable, keys=keys, now=now
            )
            detached_leaves = archive_records.build_detached_leaves(earlier, leaves)
        except (LookupError, OSError, PhiOidcError, DatabaseError) as error:
            removable = []
            leaves = {}
            fault = f"Nothing is detached: {error}"
    detail = {"first": first, "tree_size": size, "sha256": digest}
    # An archive behind a gap leaves events that are in no archive.
    if first <= archived_size:
        detail["archived_size"] = max(archived_size, size)
    else:
        detail["archived_size"] = archived_size

    lists = {
        "detached": [partition.suffix for partition in removable],
        "detached_leaves": detached_leaves,
    }
    detail_with_lists = detail | {name: items for name, items in lists.items() if items}
    record(
        Action.AUDIT_ARCHIVED, origin=current_origin(), now=clock.now(), detail=detail_with_lists
    )
    archive_files.register_archive(archive, sha256=digest)
    for partition in removable:
        partitions.detach_partition(partition, newest_leaf=newest_leaf)
    for partition, ranges in leaves.items():
        partitions.detach_leaves(partition, end_leaf=ranges[-1][1])
    names = [partition.name for partition in (*removable, *leaves)]
    row = {"file": str(path), **detail, "detached": names}
    text = f"{path}: leaves {first} to {size - 1}, SHA-256 {digest}."
    if options["detach"]:
        text += f" Detached: {', '.join(names) or 'none'}.{kept}"
    output.confirm(row, text, fault=fault)
