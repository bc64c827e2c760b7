"""Keep what a sign-in brought and the project declared, sealed, for as long as it declared."""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import router

from .._internal.sql import insert
from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..config.claims import ClaimDeclaration
from ..subjects.models import PairwiseSubject
from .legal_holds import find_current_hold, get_claim_key_name, preserve_replaced_claims
from .minimization import PROTOCOL_CLAIMS
from .models import NO_SESSION, LegalHold, StoredClaim


def store_claims(
    claims: Mapping[str, Any],
    *,
    declared_claims: Mapping[str, ClaimDeclaration],
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
    names = tuple(sorted(name for name in claims if _is_storable(declared_claims.get(name))))
    hold = find_current_hold(subject, now=now) if names else None
    if hold is not None:
        unmoved = preserve_replaced_claims(subject, names, now=now)
        names = tuple(name for name in names if name not in unmoved)
    if not names:
        return ()
    insert(
        [
            _create_row(declared_claims[name], claims[name], subject=subject, session_id=session_id, hold=hold, now=now)
            for name in names
        ],
        using=router.db_for_write(StoredClaim),
        unique_columns=["subject_id", "session", "name"],
        update_columns=["bucket", "value", "purpose", "obtained_at", "expires_at", "held_until"],
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


def _is_storable(declaration: ClaimDeclaration | None) -> bool:
    return declaration is not None and declaration.retention is not None and declaration.name not in PROTOCOL_CLAIMS


def _create_row(
    declaration: ClaimDeclaration,
    value: Any,
    *,
    subject: PairwiseSubject,
    session_id: uuid.UUID,
    hold: LegalHold | None,
    now: datetime,
) -> StoredClaim:
    assert declaration.retention is not None  # noqa: S101 -- for the type: a claim without is not stored
    return StoredClaim(
        subject=subject,
        session=session_id if declaration.retention == "session" else NO_SESSION,
        name=declaration.name,
        bucket=get_claim_key_name(obtained_at=now, retention=declaration.retention, hold=hold),
        held_until=subject.held_until,
        value=json.dumps(value, allow_nan=False),
        purpose=declaration.purpose,
        obtained_at=now,
        expires_at=now + declaration.retention if isinstance(declaration.retention, timedelta) else None,
    )
