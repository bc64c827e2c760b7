"""A restored log goes on, in an epoch of its own that begins with the event that says so."""

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import CheckpointInvalid, SealingRefused
from ..merkle.checkpoint import verify_checkpoint
from ..merkle.rfc6962 import leaf_hash
from ..statements import insert
from .appending import Log, alone, append, continues, last_signed, tell_witness
from .events import Act, Action, Origin, canonical_bytes
from .routing import AUDIT_ALIAS
from .signing import epoch_of, public_keys
from .witnessing import known_outside
from .writing import finish, rows_of, tell


def resume(*, outside: str, why: str, key: Ed25519PrivateKey, now: datetime) -> str:
    """Open the next epoch of a restored log, and return its first checkpoint.

    outside: the largest checkpoint that is known outside, which the database does not continue. The epoch's first leaf
    is the event `audit.restored` with that checkpoint's size and root, for everybody to see.
    Raises: CheckpointInvalid; SealingRefused when the database does continue it, or a larger one is known.
    """
    keys = public_keys(key)
    lost = verify_checkpoint(outside, keys)
    epoch = epoch_of(lost.origin)
    if epoch is None:
        raise CheckpointInvalid("That is a checkpoint of another log.")
    with alone():
        log = last_signed(keys)
        if epoch < log.epoch or (epoch == log.epoch and continues(log.range, lost)):
            raise SealingRefused("The log continues that checkpoint: there is nothing to resume.")
        for of, known in known_outside(keys).items():
            if (of, known.tree_size) > (epoch, lost.tree_size):
                raise SealingRefused(f"A larger checkpoint is known outside: {known.tree_size} of {known.origin}.")
        detail = {
            "epoch": epoch + 1,
            "origin": lost.origin,
            "tree_size": lost.tree_size,
            "root_hash": lost.root_hash.hex(),
            "why": why,
        }
        restored = finish(Act(action=Action.AUDIT_RESTORED, origin=Origin(), now=now, detail=detail))
        insert(rows_of([restored]), using=AUDIT_ALIAS)
        leaf = restored.event.id.bytes, leaf_hash(canonical_bytes(restored.event))
        note = append(Log(epoch=epoch + 1, range=log.range), [leaf], key=key, now=now)
    tell([restored])
    tell_witness(note)
    return note
