"""What convinces somebody who does not trust this database: an event is in the log; the log has only grown."""

import uuid

from ..errors import CheckpointInvalid, ProofInvalid
from ..merkle.checkpoint import parse_checkpoint
from ..merkle.proof import consistency_proof, inclusion_proof, root_at, verify_inclusion
from ..merkle.rfc6962 import leaf_hash
from .bundle import build_bundle, build_consistency
from .nodes import LogDamaged, read_node
from .reading import read_checkpoints, read_event


def prove(event_id: uuid.UUID) -> str:
    """Return the bundle that proves the event under the newest checkpoint, as JSON text.

    Raises: LookupError when there is no such event, or it is not sealed yet, or the log is damaged.
    Spec: RFC 6962 2.1.1.
    """
    event = read_event(event_id)
    newest = next(iter(read_checkpoints(-1, limit=1, newest_first=True)), None)
    if event is None or event.canonical is None:
        raise LookupError(f"There is no event {event_id}.")
    if event.leaf_index < 0 or newest is None or event.leaf_index >= newest.tree_size:
        raise LookupError(f"Event {event_id} is not sealed yet.")
    proof = inclusion_proof(event.leaf_index, newest.tree_size, read_node)
    try:
        verify_inclusion(
            leaf_hash=leaf_hash(event.canonical),
            leaf_index=event.leaf_index,
            tree_size=newest.tree_size,
            proof=proof,
            root_hash=parse_checkpoint(newest.note).root_hash,
        )
    except (ProofInvalid, CheckpointInvalid) as error:
        raise LookupError(f"Event {event_id} is not what was sealed: `audit verify` tells more.") from error
    return build_bundle(canonical=event.canonical, leaf_index=event.leaf_index, proof=proof, note=newest.note)


def prove_consistency(old: str, new: str) -> str:
    """Return the JSON text that proves that the checkpoint new continues old. Their signatures are NOT checked.

    Raises: CheckpointInvalid; ProofInvalid when this log leads to one of them not.
    Spec: RFC 6962 2.1.2.
    """
    first, second = parse_checkpoint(old), parse_checkpoint(new)
    if first.tree_size > second.tree_size:
        raise CheckpointInvalid("The old checkpoint is larger than the new one.")
    try:
        for each in (first, second):
            if root_at(each.tree_size, read_node) != each.root_hash:
                raise ProofInvalid(f"This log has another root at {each.tree_size} events.")
        proof = consistency_proof(first.tree_size, second.tree_size, read_node)
    except LogDamaged as error:
        raise ProofInvalid(f"The log does not reach that far, or is damaged: {error}") from error
    return build_consistency(old=old, new=new, proof=proof)
