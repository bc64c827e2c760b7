"""Keep what a sign-in brought and the project declared, sealed, for as long as it declared."""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import router

from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..declarations import ClaimDeclaration
from ..statements import insert
from ..subjects.models import PairwiseSubject
from .catalog import PROTOCOL_CLAIMS
from .holding import bucket_for, current_hold, set_aside
from .models import NO_SESSION, LegalHold, StoredClaim


def store(
    kept: Mapping[str, Any],
    *,
    declared: Mapping[str, ClaimDeclaration],
    subject: PairwiseSubject,
    session_id: uuid.UUID,
    origin: Origin,
    provider: str,
    now: datetime,
) -> tuple[str, ...]:
    """Store the declared claims of kept inside the caller's transaction, in one statement; return their names, sorted.

    A claim of the session gets a row of its own, any other replaces what an earlier sign-in brought, which a legal hold
    keeps beside it; one that is held and can't be opened is not replaced, and nothing is stored in its place. A claim
    without retention, and one that is not declared, is not stored. Purpose and end are those of today's declaration.
    Requires: the caller holds the row of the subject. Raises: KeyMissing.
    """
    names = tuple(sorted(name for name in kept if _is_stored(declared.get(name))))
    hold = current_hold(subject, now=now) if names else None
    if hold is not None:
        unmoved = set_aside(subject, names, now=now)
        names = tuple(name for name in names if name not in unmoved)
    if not names:
        return ()
    insert(
        [
            _row(declared[name], kept[name], subject=subject, session_id=session_id, hold=hold, now=now)
            for name in names
        ],
        using=router.db_for_write(StoredClaim),
        unique=["subject_id", "session", "name"],
        replaced=["bucket", "value", "purpose", "obtained_at", "expires_at", "held_until"],
    )
    enqueue(
        Action.CLAIM_STORED,
        origin=origin,
        now=now,
        subject=str(subject.uuid),
        provider=provider,
        detail={"claims": list(names)},
    )
    return names


def _is_stored(claim: ClaimDeclaration | None) -> bool:
    return claim is not None and claim.retention is not None and claim.name not in PROTOCOL_CLAIMS


def _row(
    claim: ClaimDeclaration,
    value: Any,
    *,
    subject: PairwiseSubject,
    session_id: uuid.UUID,
    hold: LegalHold | None,
    now: datetime,
) -> StoredClaim:
    assert claim.retention is not None  # noqa: S101 -- for the type: a claim without is not stored
    return StoredClaim(
        subject=subject,
        session=session_id if claim.retention == "session" else NO_SESSION,
        name=claim.name,
        bucket=bucket_for(obtained=now, retention=claim.retention, hold=hold),
        held_until=subject.held_until,
        value=json.dumps(value, allow_nan=False),
        purpose=claim.purpose,
        obtained_at=now,
        expires_at=now + claim.retention if isinstance(claim.retention, timedelta) else None,
    )
