"""Store the declared claims of a sign-in, encrypted, until their declared retention ends."""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import router

from .._internal.inserts import insert
from ..config.claims import ClaimDeclaration
from ..contrib.legal_holds.legal_holds import (
    find_current_hold,
    get_claim_key_name,
    preserve_replaced_claims,
)
from ..contrib.legal_holds.models import LegalHold
from ..crypto.retention_keys import KeyCache
from ..subjects.models import PairwiseSubject
from .minimization import PROTOCOL_CLAIMS
from .models import NO_SESSION, StoredClaim

_UNIQUE_COLUMNS = ("subject_id", "session", "name")
_REPLACED_COLUMNS = (
    "bucket",
    "value",
    "purpose",
    "obtained_at",
    "expires_at",
    "held_until",
    "owner",
    "retained_until",
)


def store_claims(
    claims: Mapping[str, Any],
    *,
    declared_claims: Mapping[str, ClaimDeclaration],
    subject: PairwiseSubject,
    session_id: uuid.UUID,
    now: datetime,
) -> tuple[str, ...]:
    """Store the declared claims in the caller's transaction, with one INSERT; return their names,
    sorted.

    A claim of the session gets its own row. Others replace those of an earlier sign-in, which a
    legal hold preserves in addition; a held claim that cannot be decrypted is not replaced, and the
    new one is not stored. Claims that are not declared, or have no retention, are not stored.
    Purpose and end follow the current declaration.
    Requires: the caller has locked the subject's row, and names the stored claims in an event of
    the same transaction.
    Raises: KeyMissing.
    """
    names = tuple(sorted(name for name in claims if _is_storable(declared_claims.get(name))))
    hold = None
    if names:
        hold = find_current_hold(subject, now=now)

    if hold is not None:
        unmoved = preserve_replaced_claims(subject, names, now=now)
        names = tuple(name for name in names if name not in unmoved)
    if not names:
        return ()
    fields: dict[str, Any] = {
        "subject": subject,
        "session_id": session_id,
        "hold": hold,
        "now": now,
    }
    rows = [_create_row(declared_claims[name], claims[name], **fields) for name in names]
    encrypted: Any = StoredClaim._meta.get_field("value")
    retention_key_cache: KeyCache = {}
    for row in rows:
        encrypted.encrypt(row, retention_key_cache=retention_key_cache)
    # Without bulk_create, which would take a tenth of the time of a sign-in.
    using = router.db_for_write(StoredClaim)
    insert(rows, using=using, unique=_UNIQUE_COLUMNS, replaced=_REPLACED_COLUMNS)
    return names


def _is_storable(declaration: ClaimDeclaration | None) -> bool:
    return (
        declaration is not None
        and declaration.retention is not None
        and declaration.name not in PROTOCOL_CLAIMS
    )


def _create_row(
    declared: Any,
    value: Any,
    *,
    subject: PairwiseSubject,
    session_id: Any,
    hold: LegalHold | None,
    now: datetime,
) -> StoredClaim:
    if declared.retention == "session":
        session = session_id
    else:
        session = NO_SESSION
    return StoredClaim(
        subject=subject,
        session=session,
        name=declared.name,
        bucket=get_claim_key_name(obtained_at=now, retention=declared.retention, hold=hold),
        held_until=subject.held_until,
        value=json.dumps(value, allow_nan=False),
        purpose=declared.purpose,
        obtained_at=now,
        expires_at=now + declared.retention if isinstance(declared.retention, timedelta) else None,
    )
