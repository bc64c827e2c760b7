"""Legal holds: while one lasts, nothing that is held of a person is scrubbed by any path, nor its key destroyed."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.db import transaction
from django.db.models import Q, QuerySet

from .._internal import randomness
from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..crypto import retention_keys
from ..errors import CiphertextInvalid, KeyUnknown
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, LegalHold, StoredClaim

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
"""Until when a hold lasts that has no end."""


def place_hold(
    subject_id: uuid.UUID, *, reason: str, until: datetime | None, origin: Origin, now: datetime
) -> LegalHold:
    """Keep all that is held of the subject from now on, what comes later included; return the hold.

    reason: for people, and not in the trail. until: aware; None: until it is released. Whoever is erasing at this
    moment has done so before, or erases nothing of theirs.
    Raises: ValueError without a reason, and for a time that is over; PairwiseSubject.DoesNotExist.
    """
    if not reason.strip():
        raise ValueError("A hold has a reason.")
    if until is not None and until <= now:
        raise ValueError("That time is over.")
    with transaction.atomic():
        subject = PairwiseSubject.objects.select_for_update(no_key=True).get(uuid=subject_id)
        hold = LegalHold.objects.create(
            # It tells when: the key of one that was rolled back is not kept for ever.
            id=randomness.uuid7(now),
            subject=subject,
            reason=reason.strip(),
            placed_at=now,
            placed_by=origin.actor,
            until=until,
        )
        _enqueue_hold_event(Action.HOLD_PLACED, hold, subject, origin=origin, now=now)
        _apply_holds(subject, now=now)
    return hold


def release_hold(hold_id: uuid.UUID, *, origin: Origin, now: datetime) -> bool:
    """End a hold, and say whether it was one; what no other hold keeps is scrubbed when its time is over.

    Raises: LegalHold.DoesNotExist.
    """
    with transaction.atomic():
        subject = PairwiseSubject.objects.select_for_update(no_key=True).filter(holds=hold_id).first()
        hold = LegalHold.objects.get(pk=hold_id)
        if subject is None or hold.released_at is not None:
            return False
        hold.released_at, hold.released_by = now, origin.actor
        hold.save(update_fields=["released_at", "released_by"])
        _enqueue_hold_event(Action.HOLD_RELEASED, hold, subject, origin=origin, now=now)
        _apply_holds(subject, now=now)
    return True


def list_active_holds(*, now: datetime) -> QuerySet[LegalHold]:
    """Return the holds that last, the oldest first."""
    lasting = Q(until=None) | Q(until__gt=now)
    return LegalHold.objects.filter(lasting, released_at=None).order_by("placed_at", "pk")


def is_on_legal_hold(subject: PairwiseSubject, *, now: datetime) -> bool:
    """Say whether a legal hold keeps the subject, as the instance has it."""
    return subject.held_until is not None and subject.held_until > now


def find_current_hold(subject: PairwiseSubject, *, now: datetime) -> LegalHold | None:
    """Return the hold under whose key claims of the subject are sealed. Requires: the caller holds its row."""
    return list_active_holds(now=now).filter(subject=subject.pk).first() if is_on_legal_hold(subject, now=now) else None


def get_claim_key_name(
    *, obtained_at: datetime, retention: timedelta | Literal["session"], hold: LegalHold | None
) -> str:
    """Return the name of the retention key for such a claim; empty when there are none."""
    if not retention_keys.is_enabled():
        return ""
    return (
        retention_keys.retention_key_name(obtained_at, retention)
        if hold is None
        else retention_keys.hold_key_name(hold.pk.hex)
    )


def preserve_replaced_claims(subject: PairwiseSubject, names: Collection[str], *, now: datetime) -> set[str]:
    """Keep the claims that new ones are about to replace, each as one whose time is over. Requires: a hold.

    Return the names of those that can't be opened, and so not be moved: nothing may take their place.
    """
    unmoved = set()
    for claim in StoredClaim.objects.filter(subject=subject.pk, session=NO_SESSION, name__in=names):
        # Of no session that there is: nothing replaces it, and it is revealed as held alone.
        elsewhere = uuid.UUID(bytes=randomness.token_bytes(16), version=4)
        if not _reencrypt_claim(claim, bucket=claim.bucket, session=elsewhere):
            unmoved.add(claim.name)
        StoredClaim.objects.filter(pk=claim.pk).update(expires_at=now)
    return unmoved


def _apply_holds(subject: PairwiseSubject, *, now: datetime) -> None:
    """Let the subject and all its claims be kept as the holds of it say that last. Requires: its row is held."""
    holds = list(list_active_holds(now=now).filter(subject=subject.pk))
    until = max((hold.until or FOREVER for hold in holds), default=None)
    PairwiseSubject.objects.filter(pk=subject.pk).update(held_until=until)
    claims = StoredClaim.objects.filter(subject=subject.pk).order_by("pk").select_for_update()
    for claim in claims:
        if retention_keys.is_enabled():
            bucket = get_claim_key_name(
                obtained_at=now, retention=_get_retention(claim), hold=holds[0] if holds else None
            )
            _reencrypt_claim(claim, bucket=bucket, session=claim.session)
        StoredClaim.objects.filter(pk=claim.pk).update(held_until=until)


def _get_retention(claim: StoredClaim) -> timedelta | Literal["session"]:
    if claim.session != NO_SESSION or claim.expires_at is None:
        return "session"
    # The clock of a server that let it lapse may be behind that of the one that obtained it.
    return max(claim.expires_at - claim.obtained_at, timedelta())


def _reencrypt_claim(claim: StoredClaim, *, bucket: str, session: uuid.UUID) -> bool:
    """Seal the value under that key and for that session; False: it can't be opened, and stays as it is."""
    if (claim.bucket, claim.session) == (bucket, session):
        return True
    field: Any = StoredClaim._meta.get_field("value")
    try:
        value = field.decrypt(claim)
    except (KeyUnknown, CiphertextInvalid):
        return False
    claim.bucket, claim.session, claim.value = bucket, session, value
    claim.save(update_fields=["bucket", "session", "value"])
    return True


def _enqueue_hold_event(
    action: Action, hold: LegalHold, subject: PairwiseSubject, *, origin: Origin, now: datetime
) -> None:
    until = {"until": hold.until.isoformat() if hold.until else ""} if action is Action.HOLD_PLACED else {}
    enqueue(
        action,
        origin=origin,
        now=now,
        subject=str(subject.uuid),
        resource=f"LegalHold/{hold.pk}",
        detail=until,
    )
