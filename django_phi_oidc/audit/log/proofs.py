"""Build proofs for a party that does not trust this database: an event is in the log; the log has only grown."""

import uuid
from collections.abc import Sequence

from ...errors import CheckpointInvalid, ProofInvalid
from ...merkle.checkpoint import parse_checkpoint
from ...merkle.proof import build_consistency_proof, build_inclusion_proof, compute_root_at_size, verify_inclusion
from ...merkle.rfc6962 import hash_leaf
from ..models import AuditLeaf
from .archive import LogArchive, open_archives
from .bundle import build_consistency_bundle, build_inclusion_bundle
from .reader import RawEvent, find_raw_event, read_checkpoints
from .tree_storage import LogDamaged, read_node


def create_inclusion_proof(event_id: uuid.UUID, *, archives: Sequence[LogArchive] = ()) -> str:
    """Return the bundle that proves the event under the newest checkpoint, as JSON text.

    archives: verified files, for an event that is no longer in the table.
    Raises: LookupError if there is no such event, it is not sealed yet, or the log is damaged. Spec: RFC 6962 2.1.1.
    """
    event = find_raw_event(event_id)
    newest = next(iter(read_checkpoints(-1, limit=1, newest_first=True)), None)
    if event is None and archives:
        event = _find_archived(event_id, archives)
    if event is None or event.canonical is None:
        raise LookupError(f"There is no event {event_id}.")
    if event.leaf_index < 0 or newest is None or event.leaf_index >= newest.tree_size:
        raise LookupError(f"Event {event_id} is not sealed yet.")
    proof = build_inclusion_proof(event.leaf_index, newest.tree_size, read_node)
    try:
        verify_inclusion(
            leaf_hash=hash_leaf(event.canonical),
            leaf_index=event.leaf_index,
            tree_size=newest.tree_size,
            proof=proof,
            root_hash=parse_checkpoint(newest.note).root_hash,
        )
    except (ProofInvalid, CheckpointInvalid) as error:
        raise LookupError(f"Event {event_id} is not what was sealed: run `audit verify`.") from error
    return build_inclusion_bundle(canonical=event.canonical, leaf_index=event.leaf_index, proof=proof, note=newest.note)


def _find_archived(event_id: uuid.UUID, archives: Sequence[LogArchive]) -> RawEvent | None:
    leaf = AuditLeaf.objects.filter(event_id=event_id).first()
    if leaf is None:
        return None
    with open_archives(archives) as find:
        canonical = find(leaf.leaf_index)
    return RawEvent(leaf.leaf_index, event_id.bytes, bytes(leaf.leaf_hash), "", b"", canonical)


def create_consistency_proof(old_note: str, new_note: str) -> str:
    """Return the JSON text that proves that new_note continues old_note. The signatures are NOT checked.

    Raises: CheckpointInvalid; ProofInvalid if this log does not lead to both of them. Spec: RFC 6962 2.1.2.
    """
    old, new = parse_checkpoint(old_note), parse_checkpoint(new_note)
    if old.tree_size > new.tree_size:
        raise CheckpointInvalid("The old checkpoint is larger than the new one.")
    try:
        for checkpoint in (old, new):
            if compute_root_at_size(checkpoint.tree_size, read_node) != checkpoint.root_hash:
                raise ProofInvalid(f"This log has another root at {checkpoint.tree_size} events.")
        proof = build_consistency_proof(old.tree_size, new.tree_size, read_node)
    except LogDamaged as error:
        raise ProofInvalid(f"The log does not reach that far, or is damaged: {error}") from error
    return build_consistency_bundle(old_note=old_note, new_note=new_note, proof=proof)
