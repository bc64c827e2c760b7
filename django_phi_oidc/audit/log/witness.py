"""What is known outside of the database: a restored one must not sign what was signed before, with other leaves."""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ... import conf
from ...errors import CheckpointInvalid, SealingRefused
from ...merkle.checkpoint import MAX_NOTE_BYTES, Checkpoint, verify_checkpoint
from ..models import AuditWitness
from .keys import find_epoch

logger = logging.getLogger("phi_oidc.audit")


def get_witnessed_checkpoints(keys: Sequence[Ed25519PublicKey]) -> dict[int, Checkpoint]:
    """Return, by epoch, the largest checkpoint of this log that the witness file or a sink has, signed by one of keys.

    What a sink has confirmed and nobody trusted has signed is left out: a row of that table is no proof of anything.
    Raises: SealingRefused when the file is there and is no such checkpoint: what it would have said is not known.
    """
    found: dict[int, Checkpoint] = {}
    for note in AuditWitness.objects.values_list("note", flat=True):
        try:
            _keep_largest(found, verify_checkpoint(note, keys))
        except CheckpointInvalid:
            logger.warning("What a sink has confirmed is no checkpoint that a known key has signed.")
    if (path := find_witness_file()) and os.path.lexists(path):
        try:
            with path.open("rb") as file:
                noted = verify_checkpoint(file.read(MAX_NOTE_BYTES + 1).decode(), keys)
        except (OSError, UnicodeDecodeError) as error:
            raise SealingRefused(f"The witness file can't be read: {type(error).__name__}.") from error
        except CheckpointInvalid as error:
            raise SealingRefused("The witness file holds no checkpoint that a known key has signed.") from error
        if not _keep_largest(found, noted):
            raise SealingRefused("The witness file holds a checkpoint of another log.")
    return found


def _keep_largest(largest_by_epoch: dict[int, Checkpoint], checkpoint: Checkpoint) -> bool:
    """Say whether the checkpoint is of this log; put it into found if it is the largest of its epoch."""
    epoch = find_epoch(checkpoint.origin)
    if epoch is None:
        return False
    if epoch not in largest_by_epoch or largest_by_epoch[epoch].tree_size < checkpoint.tree_size:
        largest_by_epoch[epoch] = checkpoint
    return True


def write_witness_file(note: str) -> None:
    """Put the newest checkpoint into the witness file, where one is configured; the file is whole at any moment.

    Raises: OSError.
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
    """Return the path of the witness file; None where none is configured."""
    path = conf.witness_file()
    return Path(path) if path else None
