"""Checkpoints kept outside the database: a restored database must not sign the same sizes again
with other leaves.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import conf
from ..errors import CheckpointInvalid, SealingRefused
from ..merkle.checkpoint import MAX_NOTE_BYTES, Checkpoint, LogKey, verify_checkpoint
from ..models import AuditWitness
from .models import LogWitness
from .signing_keys import find_epoch

logger = logging.getLogger("phi_oidc.audit")


def get_witnessed_checkpoints(keys: Sequence[LogKey]) -> dict[int, Checkpoint]:
    """Return the largest checkpoint of each epoch that is known outside, signed by one of `keys`.

    It is in the witness file, was confirmed by a sink, or is cosigned by a witness. Rows of the
    tables without a valid signature are ignored: anybody with write access could have inserted
    them.
    Raises: SealingRefused if the file exists but does not hold a checkpoint of this log: what it
    held is unknown.
    """
    largest: dict[int, Checkpoint] = {}
    cosigned = LogWitness.objects.exclude(note="").values_list("note", flat=True)
    for note in {*AuditWitness.objects.values_list("note", flat=True), *cosigned}:
        try:
            _add_if_largest(largest, verify_checkpoint(note, keys))
        except CheckpointInvalid:
            logger.warning(
                "A checkpoint that a sink or a witness has confirmed is not signed by a known key."
            )
    if (path := find_witness_file()) and os.path.lexists(path):
        try:
            with path.open("rb") as file:
                checkpoint = verify_checkpoint(file.read(MAX_NOTE_BYTES + 1).decode(), keys)
        except (OSError, UnicodeDecodeError) as error:
            raise SealingRefused(
                f"The witness file can't be read: {type(error).__name__}."
            ) from error
        except CheckpointInvalid as error:
            raise SealingRefused(
                "The witness file holds no checkpoint signed by a known key."
            ) from error
        if not _add_if_largest(largest, checkpoint):
            raise SealingRefused("The witness file holds a checkpoint of another log.")
    return largest


def _add_if_largest(largest_by_epoch: dict[int, Checkpoint], checkpoint: Checkpoint) -> bool:
    """Add the checkpoint if it is the largest of its epoch. Return False if it belongs to another
    log.
    """
    epoch = find_epoch(checkpoint.origin)
    if epoch is None:
        return False
    if epoch not in largest_by_epoch or largest_by_epoch[epoch].tree_size < checkpoint.tree_size:
        largest_by_epoch[epoch] = checkpoint
    return True


def write_witness_file(note: str) -> None:
    """Replace the content of the witness file, if one is configured, atomically. Raises:
    OSError.
    """
    path = find_witness_file()
    if path is None:
        return
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def find_witness_file() -> Path | None:
    """Return the path of the witness file; None if none is configured."""
    path = conf.witness_file()
    if path:
        return Path(path)
    return None
