"""Build proofs for a party that does not trust this database: an event is in the log; the log has
only grown.
"""

import uuid
from collections.abc import Sequence

from ...errors import KeyMissing
from .. import conf
from ..errors import CheckpointInvalid, LogDamaged, ProofInvalid
from ..merkle.checkpoint import parse_checkpoint
from ..merkle.proof import (
    build_consistency_proof,
    build_inclusion_proof,
    compute_root_at_size,
    verify_inclusion,
)
from ..merkle.rfc6962 import hash_leaf
from .archive import LogArchive, find_archived_event
from .bundle import build_consistency_bundle, build_inclusion_bundle
from .cosigned_checkpoints import build_cosigned_note, find_cosigned_checkpoint
from .reader import RawEvent, find_raw_event, read_checkpoints
from .signing_keys import get_public_keys
from .tree_storage import read_nodes


def create_inclusion_proof(event_id: uuid.UUID, *, archives: Sequence[LogArchive] = ()) -> str:
    """Return the bundle that proves the event, as JSON text.

    The checkpoint is the newest one that a quorum of witnesses has cosigned. If none covers the
    event, it is the newest one, with the cosignatures that it has.
    archives: verified files, for an event that is no longer in the table.
    Raises: LookupError if there is no such event, it is not sealed yet, or the log is damaged.
    Spec: RFC 6962 2.1.1.
    """
    event = find_raw_event(event_id)
    newest = next(iter(read_checkpoints(-1, limit=1, newest_first=True)), None)
    if event is None and archives:
        event = _find_archived(event_id, archives)
    if event is None or event.canonical is None:
        raise LookupError(f"There is no event {event_id}.")
    if event.leaf_index < 0 or newest is None or event.leaf_index >= newest.tree_size:
        raise LookupError(f"Event {event_id} is not sealed yet.")
    try:
        note = _find_cosigned_note(event.leaf_index, epoch=newest.epoch) or build_cosigned_note(
            newest.note
        )
        checkpoint = parse_checkpoint(note)
        proof = build_inclusion_proof(event.leaf_index, checkpoint.tree_size, read_nodes)
        verify_inclusion(
            leaf_hash=hash_leaf(event.canonical),
            leaf_index=event.leaf_index,
            tree_size=checkpoint.tree_size,
            proof=proof,
            root_hash=checkpoint.root_hash,
        )
    except KeyMissing as error:
        raise LookupError(str(error)) from error
    except (ProofInvalid, CheckpointInvalid) as error:
        raise LookupError(
            f"Event {event_id} is not what was sealed: run `audit verify`."
        ) from error
    return build_inclusion_bundle(
        canonical=event.canonical, leaf_index=event.leaf_index, proof=proof, note=note
    )


def _find_cosigned_note(leaf_index: int, *, epoch: int) -> str:
    """Return the newest note with a quorum that covers the leaf, of the epoch; "" if there is
    none.
    """
    if not conf.witness_quorum():
        return ""
    cosigned = find_cosigned_checkpoint(get_public_keys(), min_size=leaf_index + 1)
    # A checkpoint of an earlier epoch may have been lost in a restore.
    if cosigned and cosigned.epoch == epoch:
        return cosigned.note
    return ""


def _find_archived(event_id: uuid.UUID, archives: Sequence[LogArchive]) -> RawEvent | None:
    for archive in archives:
        if found := find_archived_event(archive, event_id):
            leaf_index, canonical = found
            return RawEvent(leaf_index, event_id.bytes, hash_leaf(canonical), "", b"", canonical)
    return None


def create_consistency_proof(old_note: str, new_note: str) -> str:
    """Return the JSON text that proves that new_note continues old_note. The signatures are NOT
    checked.

    Raises: CheckpointInvalid; ProofInvalid if this log does not lead to both of them. Spec: RFC
    6962 2.1.2.
    """
    old = parse_checkpoint(old_note)
    new = parse_checkpoint(new_note)
    if old.tree_size > new.tree_size:
        raise CheckpointInvalid("The old checkpoint is larger than the new one.")
    try:
        for checkpoint in (old, new):
            if compute_root_at_size(checkpoint.tree_size, read_nodes) != checkpoint.root_hash:
                raise ProofInvalid(f"This log has another root at {checkpoint.tree_size} events.")
        proof = build_consistency_proof(old.tree_size, new.tree_size, read_nodes)
    except LogDamaged as error:
        raise ProofInvalid(f"The log does not reach that far, or is damaged: {error}") from error
    return build_consistency_bundle(old_note=old_note, new_note=new_note, proof=proof)
