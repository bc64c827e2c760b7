"""The checkpoints that witnesses have cosigned, and whether a quorum of them did.

Nothing here trusts a row: the signatures of the log and of the witnesses are verified at each read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Q

from ..._internal.sql import delete_in_batches
from ...errors import KeyMissing
from .. import conf
from ..errors import CheckpointInvalid
from ..merkle.checkpoint import Checkpoint, LogKey, parse_checkpoint, verify_checkpoint
from ..merkle.cosignature import (
    WitnessKey,
    add_signature_lines,
    parse_witness_key,
    require_quorum,
    verify_cosignatures,
)
from ..merkle.witness_protocol import REFUSALS
from ..models import AuditCheckpoint
from ..storage import translate_database_errors
from .findings import FindingKind, LogFinding
from .models import Cosignature, LogWitness
from .signing_keys import find_epoch, get_public_keys
from .witness import get_witnessed_checkpoints

OVERDUE_AFTER = timedelta(minutes=5)
"""A checkpoint that has lacked a quorum for longer raises an alert."""
KEPT_COSIGNATURES = 10_000
"""Of each epoch: about 5 MB."""
_CANDIDATES = (60, 2_000)
"""Cosignatures that are read to find a checkpoint with a quorum: a few at first, and more if there
is none.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignedCheckpoint:
    """A checkpoint signed by the log, and cosigned by a quorum of the declared witnesses."""

    checkpoint: Checkpoint
    epoch: int
    note: str
    """With the signature lines of the witnesses."""


def get_witness_keys() -> dict[str, WitnessKey]:
    """Return the keys of the declared witnesses by their declared names. Raises: KeyMissing."""
    keys = {}
    for name, declaration in conf.witnesses().items():
        try:
            keys[name] = parse_witness_key(declaration.key)
        except ValueError as error:
            text = (
                f"PHI_OIDC['AUDIT']['witnesses'][{name!r}]['key'] is no verifier key for "
                "cosignatures (type 0x04)."
            )
            raise KeyMissing(text) from error
    return keys


def build_cosigned_note(note: str) -> str:
    """Return the note of a checkpoint with the valid cosignatures of the declared witnesses.

    Raises: CheckpointInvalid, KeyMissing.
    """
    keys = get_witness_keys()
    if not keys:
        return note
    checkpoint = parse_checkpoint(note)
    rows = Cosignature.objects.filter(
        origin=checkpoint.origin, tree_size=checkpoint.tree_size, witness__in=keys
    ).order_by("witness")
    return add_signature_lines(
        note, [row.line for row in rows if _is_valid(note, row.line, keys[row.witness])]
    )


def list_cosignatures(note: str) -> dict[str, datetime | None]:
    """Return when each declared witness cosigned the checkpoint; None if it did not, by the
    declared name.

    Raises: CheckpointInvalid, KeyMissing.
    """
    keys = get_witness_keys()
    times = verify_cosignatures(build_cosigned_note(note), keys.values())
    cosignatures = {}
    for name, key in keys.items():
        cosignatures[name] = (
            datetime.fromtimestamp(times[key.name], UTC) if key.name in times else None
        )
    return cosignatures


def find_cosigned_checkpoint(
    keys: Sequence[LogKey], *, min_size: int = 0
) -> CosignedCheckpoint | None:
    """Return the newest checkpoint of at least min_size leaves that a quorum has cosigned; None if
    there is none.

    keys: of the log. Without a quorum (0) there is none. Raises: KeyMissing.
    """
    witness_keys = get_witness_keys()
    quorum = conf.witness_quorum()
    if not quorum:
        return None
    for limit in _CANDIDATES:
        if found := _find_in_newest_rows(
            limit, keys, witness_keys, quorum=quorum, min_size=min_size
        ):
            return found
    return None


def _find_in_newest_rows(
    limit: int,
    keys: Sequence[LogKey],
    witness_keys: Mapping[str, WitnessKey],
    *,
    quorum: int,
    min_size: int,
) -> CosignedCheckpoint | None:
    rows = Cosignature.objects.filter(witness__in=witness_keys, tree_size__gte=min_size).order_by(
        "-pk"
    )
    lines_by_place: dict[tuple[int, int, str, str], list[tuple[str, str]]] = {}
    for origin, size, note, witness, line in rows.values_list(
        "origin", "tree_size", "note", "witness", "line"
    )[:limit]:
        place = (find_epoch(origin) or 0, size, origin, note)
        lines_by_place.setdefault(place, []).append((witness, line))
    for place in sorted(lines_by_place, reverse=True):
        epoch, tree_size, origin, note = place
        lines = lines_by_place[place]
        if not epoch or len(lines) < quorum:
            continue
        valid = [line for witness, line in lines if _is_valid(note, line, witness_keys[witness])]
        cosigned_note = add_signature_lines(note, valid)
        try:
            checkpoint = verify_checkpoint(note, keys, expected_origin=origin)
            require_quorum(cosigned_note, witness_keys.values(), quorum=quorum)
        except CheckpointInvalid:
            continue
        if checkpoint.tree_size == tree_size:
            return CosignedCheckpoint(checkpoint=checkpoint, epoch=epoch, note=cosigned_note)
    return None


def find_seen_place(keys: Sequence[LogKey]) -> tuple[int, int] | None:
    """Return epoch and size of the newest checkpoint that is known outside, and has a quorum if one
    is declared.

    A larger place than this can still be replaced: only the database has it. (0, 0) without a
    quorum; None if nothing is known outside, and no quorum is declared. keys: of the log.
    Raises: SealingRefused if the witness file cannot be read; KeyMissing.
    """
    places = []
    for epoch, checkpoint in get_witnessed_checkpoints(keys).items():
        places.append((epoch, checkpoint.tree_size))
    # An earlier epoch may have been larger before its restore.
    if places:
        seen = [max(places)]
    else:
        seen = []

    if conf.witness_quorum():
        cosigned = find_cosigned_checkpoint(keys)
        seen.append((cosigned.epoch, cosigned.checkpoint.tree_size) if cosigned else (0, 0))
    return min(seen, default=None)


def find_unwitnessed_checkpoint(
    cosigned: CosignedCheckpoint | None, *, now: datetime, after: timedelta
) -> AuditCheckpoint | None:
    """Return the newest checkpoint that has lacked a quorum for longer than `after`; None if there
    is none.

    cosigned: the newest checkpoint with a quorum. A checkpoint that claims to be of the future
    counts as old.
    """
    if not conf.witness_quorum():
        return None
    due = (
        AuditCheckpoint.objects.filter(Q(sealed_at__lt=now - after) | Q(sealed_at__gt=now))
        .order_by("tree_size")
        .last()
    )
    if due is None:
        return None

    if cosigned:
        known = (cosigned.epoch, cosigned.checkpoint.tree_size)
    else:
        known = (0, -1)

    return due if (due.epoch, due.tree_size) > known else None


def count_unwitnessed_checkpoints(*, now: datetime) -> int:
    """Return 1 if the newest checkpoint of OVERDUE_AFTER ago lacks a quorum, otherwise 0.

    Raises: AuditUnavailable, KeyMissing.
    """
    if not conf.witness_quorum():
        return 0
    cosigned = find_cosigned_checkpoint(get_public_keys())
    with translate_database_errors():
        return int(find_unwitnessed_checkpoint(cosigned, now=now, after=OVERDUE_AFTER) is not None)


def verify_witnesses(
    keys: Sequence[LogKey], *, now: datetime, after: timedelta
) -> tuple[list[Checkpoint], list[LogFinding]]:
    """Return the checkpoint that the log must lead to, and what is wrong with its witnesses.

    keys: of the log. after: how long a checkpoint may lack a quorum. The checkpoint is for
    `verify_log`.
    Raises: KeyMissing.
    """
    cosigned = find_cosigned_checkpoint(keys)
    findings = []
    if row := find_unwitnessed_checkpoint(cosigned, now=now, after=after):
        text = f"It is not cosigned by a quorum of {conf.witness_quorum()} witnesses."
        findings.append(
            LogFinding(kind=FindingKind.CHECKPOINT_UNWITNESSED, tree_size=row.tree_size, text=text)
        )
    refusing = LogWitness.objects.filter(
        name__in=conf.witnesses(), last_fault__in=REFUSALS
    ).order_by("name")
    for witness in refusing:
        text = (
            f"The witness {witness.name!r} refuses the log: "
            f"{witness.last_fault}. It was rewritten or rolled back."
        )
        findings.append(
            LogFinding(kind=FindingKind.WITNESS_REFUSED, tree_size=witness.tree_size, text=text)
        )
    return [cosigned.checkpoint] if cosigned else [], findings


def delete_old_cosignatures() -> int:
    """Delete cosignatures that no proof and no verification reads, and return how many.

    A witness cosigns only what continues its last checkpoint, so its newest cosignature also covers
    all events before. Of each epoch, KEPT_COSIGNATURES stay, and those of the newest checkpoint
    with a quorum and of all after it.
    """
    deleted = 0
    for origin in set(Cosignature.objects.values_list("origin", flat=True).distinct()):
        rows = Cosignature.objects.filter(origin=origin)
        counted = (
            rows.filter(witness__in=conf.witnesses())
            .values("tree_size")
            .annotate(count=Count("pk"))
        )
        cosigned = counted.filter(count__gte=conf.witness_quorum()).order_by("-tree_size").first()
        sizes = rows.order_by("-tree_size").values_list("tree_size", flat=True)
        oldest = next(iter(sizes[KEPT_COSIGNATURES - 1 : KEPT_COSIGNATURES]), 0)
        if cosigned:
            deleted += delete_in_batches(
                rows.filter(tree_size__lt=min(oldest, cosigned["tree_size"]))
            )
    return deleted


def _is_valid(note: str, line: str, key: WitnessKey) -> bool:
    try:
        return bool(verify_cosignatures(add_signature_lines(note, [line]), [key]))
    except CheckpointInvalid:
        return False
