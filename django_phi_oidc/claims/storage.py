"""Store the declared claims of a sign-in, encrypted, until their declared retention ends."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import router

from .._internal.inserts import insert
from ..config.claims import ClaimDeclaration
from ..crypto import claim_keys
from ..crypto.claim_keys import KeyCache
from ..extensions import ClaimPreservation, retention_guards
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
    preservation = None
    if names and subject.is_held(now=now):
        preservation = _preserve_claims(subject, names, now=now)

    if preservation is not None:
        names = tuple(name for name in names if name not in preservation.kept_names)
    if not names:
        return ()
    rows = []
    for name in names:
        rows.append(
            _create_row(
                declared_claims[name],
                claims[name],
                subject=subject,
                session_id=session_id,
                hold_key_name=preservation.key_name if preservation else None,
                now=now,
            )
        )
    encrypted: Any = StoredClaim._meta.get_field("value")
    retention_key_cache: KeyCache = {}
    for row in rows:
        encrypted.encrypt(row, retention_key_cache=retention_key_cache)
    # Without bulk_create, which would take a tenth of the time of a sign-in.
    using = router.db_for_write(StoredClaim)
    insert(rows, using=using, unique=_UNIQUE_COLUMNS, replaced=_REPLACED_COLUMNS)
    return names


def _preserve_claims(
    subject: PairwiseSubject, names: Sequence[str], *, now: datetime
) -> ClaimPreservation | None:
    """Return the answer of the first guard that holds the subject."""
    for guard in retention_guards:
        preservation = guard.preserve_claims(subject, names, now=now)
        if preservation is not None:
            return preservation
    return None


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
    hold_key_name: str | None,
    now: datetime,
) -> StoredClaim:
    """hold_key_name: the name of the key of the hold; None: the person is not held, so the key of
    the day is used.
    """
    if declared.retention == "session":
        session = session_id
    else:
        session = NO_SESSION

    if hold_key_name is None:
        bucket = claim_keys.find_day_key_name(now, declared.retention)
    else:
        bucket = hold_key_name
    return StoredClaim(
        subject=subject,
        session=session,
        name=declared.name,
        bucket=bucket,
        held_until=subject.held_until,
        value=json.dumps(value, allow_nan=False),
        purpose=declared.purpose,
        obtained_at=now,
        expires_at=now + declared.retention if isinstance(declared.retention, timedelta) else None,
    )
