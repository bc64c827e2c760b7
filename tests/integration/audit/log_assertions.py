"""Invariants of a log after any interruption, recomputed from the events by the definitions of the RFC."""

import uuid
from datetime import timedelta

from django.db.models import Max

from django_phi_oidc.audit.events import canonical_bytes
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, verify_checkpoint
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditNode, AuditUnsealed
from django_phi_oidc.audit.storage import parse_event_row
from tests.support.audit_log import KEY, NOW
from tests.support.rfc6962_reference import mth

WIDTH = 256
"""Leaves below one stored node."""


def assert_log_is_coherent() -> None:
    """Leaves and checkpoint have the same size, and all other events are in the queue. True at any moment.

    Requires: no concurrent writes, or a snapshot.
    """
    leaves, top = AuditLeaf.objects.count(), AuditLeaf.objects.aggregate(top=Max("leaf_index"))["top"]
    signed = AuditCheckpoint.objects.aggregate(top=Max("tree_size"))["top"]
    assert (leaves, leaves) == (0 if top is None else top + 1, signed or 0), "leaves without a checkpoint, or the like"
    assert AuditEvent.objects.count() == leaves + AuditUnsealed.objects.count(), "an event in neither place, or in both"


def assert_log_is_whole() -> list[uuid.UUID]:
    """Each event has one leaf, and checkpoints and nodes match. Return the events in leaf order."""
    leaves = list(AuditLeaf.objects.order_by("leaf_index").values_list("leaf_index", "event_id", "leaf_hash"))
    ids = [event_id for _, event_id, _ in leaves]
    canonical = {row.id: canonical_bytes(parse_event_row(row).event) for row in AuditEvent.objects.all()}
    assert [index for index, _, _ in leaves] == list(range(len(leaves)))
    assert len(ids) == len(set(ids))
    assert set(ids) == set(canonical), "an event without a leaf, or a leaf without an event"
    assert not AuditUnsealed.objects.exists()
    d = tuple(canonical[id_] for id_ in ids)
    assert [bytes(hash_) for _, _, hash_ in leaves] == [hash_leaf(leaf) for leaf in d]
    _assert_checkpoints_fit(d)
    stored = {(row.level, row.node_index): bytes(row.node_hash) for row in AuditNode.objects.all()}
    assert len(d) < WIDTH**2, "the next level of nodes begins, which is not checked here"
    assert stored == {
        (8, start // WIDTH): mth(d[start : start + WIDTH]) for start in range(0, len(d) - WIDTH + 1, WIDTH)
    }
    assert_verify_passes(events=len(d))
    return ids


def _assert_checkpoints_fit(d: tuple[bytes, ...]) -> None:
    tree = CompactRange()
    for row in AuditCheckpoint.objects.order_by("tree_size"):
        tree.extend([hash_leaf(leaf) for leaf in d[tree.size : row.tree_size]])
        signed = verify_checkpoint(row.note, [KEY.public_key()], expected_origin="phi-oidc-audit")
        assert signed == Checkpoint(origin="phi-oidc-audit", tree_size=tree.size, root_hash=tree.compute_root())
        assert (row.tree_size, bytes(row.root_hash)) == (signed.tree_size, signed.root_hash)
    assert (tree.size, tree.compute_root()) == (len(d), mth(d))


def assert_verify_passes(*, events: int) -> None:
    """The verifier has no findings, and has read every event."""
    summary = VerificationSummary()
    findings = list(verify_log(keys=[KEY.public_key()], now=NOW + timedelta(days=1), summary=summary))
    assert findings == []
    assert (summary.tree_size, summary.events, summary.waiting) == (events, events, 0)
