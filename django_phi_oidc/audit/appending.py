"""The log's end: what was signed last, looked at before anything is appended, and one transaction in which it grows.

One sealer at a time. Nothing is signed on top of a log that is not the continuation of what was signed before, by a
known key, here or outside.
"""

import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.db import IntegrityError, connections, transaction
from django.db.models import Max

from ..errors import CheckpointInvalid, SealingRefused
from ..merkle.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from ..merkle.compact import CompactRange
from ..merkle.proof import root_at
from ..statements import insert
from .models import AuditCheckpoint, AuditLeaf
from .nodes import KEPT_LEVELS, LogDamaged, kept_rows, range_at, read_node
from .reading import read_checkpoints
from .routing import AUDIT_ALIAS
from .signing import origin, public_keys
from .witnessing import known_outside, write_witness_file

logger = logging.getLogger("phi_oidc.audit")
_LOCK = 0x7068695F6F696463
"""Of pg_advisory_xact_lock: "phi_oidc"."""
_ROW = struct.Struct(">hiqi16si32s")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_PIECE = 5_000
"""Leaves that are handed over at once."""
Leaf = tuple[bytes, bytes]
"""The 16 bytes of an event's id, and its leaf hash."""


@dataclass(frozen=True, slots=True)
class Log:
    epoch: int
    range: CompactRange


@contextmanager
def alone() -> Iterator[None]:
    """One transaction of the trail's database that no other sealer is in. Raises: RuntimeError inside of another."""
    connection = connections[AUDIT_ALIAS]
    try:
        with transaction.atomic(using=AUDIT_ALIAS, durable=True), connection.cursor() as cursor:
            # On SQLite the transaction itself is exclusive, being IMMEDIATE.
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            yield
    except (LogDamaged, IntegrityError) as error:
        raise SealingRefused("The log is damaged, and nothing is sealed on top: `audit verify` tells more.") from error


def current(key: Ed25519PrivateKey) -> Log:
    """Return the log as it was signed last, and as the outside knows it. Raises: SealingRefused, LogDamaged."""
    keys = public_keys(key)
    log = last_signed(keys)
    for epoch, known in known_outside(keys).items():
        if epoch > log.epoch or (epoch == log.epoch and not continues(log.range, known)):
            raise SealingRefused(
                f"A checkpoint of {known.tree_size} events is known outside, of {known.origin}, which this log does "
                "not continue. If it was restored from a backup, `audit resume` goes on with it and says so for good."
            )
    return log


def last_signed(keys: Sequence[Ed25519PublicKey]) -> Log:
    """Return the log as it was signed last. Raises: SealingRefused, LogDamaged."""
    rows = read_checkpoints(-1, limit=1, newest_first=True)
    size = AuditLeaf.objects.aggregate(top=Max("leaf_index"))["top"]
    covered = rows[0].tree_size if rows else 0
    if (0 if size is None else size + 1) != covered:
        raise SealingRefused("There are more or fewer leaves than the last checkpoint has: `audit verify` tells more.")
    if not rows:
        return Log(epoch=1, range=CompactRange())
    try:
        signed = verify_checkpoint(rows[0].note, keys, expected_origin=origin(rows[0].epoch))
    except CheckpointInvalid as error:
        raise SealingRefused(
            "The last checkpoint is not signed by a known key, or has another origin than PHI_OIDC['AUDIT_ORIGIN']."
        ) from error
    log = Log(epoch=rows[0].epoch, range=range_at(covered))
    if (signed.tree_size, signed.root_hash) != (covered, log.range.root()):
        raise SealingRefused("The leaves do not lead to the last checkpoint: `audit verify` tells more.")
    return log


def continues(current: CompactRange, outside: Checkpoint) -> bool:
    if outside.tree_size > current.size:
        return False
    return root_at(outside.tree_size, read_node) == outside.root_hash


def append(log: Log, leaves: Sequence[Leaf], *, key: Ed25519PrivateKey, now: datetime) -> str:
    """Write leaves (by ascending id), nodes and the checkpoint, empty the queue of them, and return the note."""
    first = log.range.size
    with _inserting(first, leaves):
        completed = log.range.extend([hash_ for _, hash_ in leaves], kept=KEPT_LEVELS)
    if nodes := kept_rows(completed):
        insert(nodes, using=AUDIT_ALIAS)
    signed = Checkpoint(origin=origin(log.epoch), tree_size=log.range.size, root_hash=log.range.root())
    note = sign_checkpoint(signed, key)
    row = AuditCheckpoint(
        tree_size=signed.tree_size, root_hash=signed.root_hash, epoch=log.epoch, sealed_at=now, note=note
    )
    insert([row], using=AUDIT_ALIAS)
    _unqueue(leaves, first)
    return note


def _unqueue(leaves: Sequence[Leaf], first: int) -> None:
    connection = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Both sides are read once; what the reading of events has set would look up each one.
            cursor.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_nestloop = off")
        cursor.execute(
            # The bounds keep it from reading the whole of a long queue.
            "DELETE FROM django_phi_oidc_auditunsealed WHERE event_id BETWEEN %s AND %s AND event_id IN "
            "(SELECT event_id FROM django_phi_oidc_auditleaf WHERE leaf_index >= %s)",
            [leaves[0][0].hex(), leaves[-1][0].hex(), first],
        )


@contextmanager
def _inserting(first: int, leaves: Sequence[Leaf]) -> Iterator[None]:
    """Insert the leaves, which are there after the block; PostgreSQL is still at it while the block runs."""
    connection = connections[AUDIT_ALIAS]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.executemany(
                "INSERT INTO django_phi_oidc_auditleaf (leaf_index, event_id, leaf_hash) VALUES (%s, %s, %s)",
                [(index, id_.hex(), hash_) for index, (id_, hash_) in enumerate(leaves, start=first)],
            )
            yield
            return
        columns = "django_phi_oidc_auditleaf (leaf_index, event_id, leaf_hash)"
        with connection.wrap_database_errors, cursor.copy(f"COPY {columns} FROM STDIN (FORMAT BINARY)") as copy:
            for start in range(0, len(leaves), _PIECE):
                piece = enumerate(leaves[start : start + _PIECE], start=first + start)
                rows = [_ROW.pack(3, 8, index, 16, id_, 32, hash_) for index, (id_, hash_) in piece]
                copy.write(b"".join((b"" if start else _COPY_HEADER, *rows)))
            copy.write(_COPY_TRAILER)
            yield


def tell_witness(note: str) -> None:
    """A checkpoint that the file could not take stands all the same; the next one tries again."""
    try:
        write_witness_file(note)
    except OSError:
        logger.exception("The witness file can't be written.")
