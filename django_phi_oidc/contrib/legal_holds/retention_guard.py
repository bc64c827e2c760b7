"""The retention guard: how legal holds keep the claims of a person."""

import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from ..._internal import randomness
from ...crypto.claim_keys import HOLD_PREFIX
from ...extensions import ClaimPreservation
from ...subjects.models import PairwiseSubject
from .legal_holds import (
    find_current_hold,
    find_hold_key_name,
    list_active_holds,
    preserve_replaced_claims,
)
from .models import LegalHold

UUID7_VERSION = 7
"""The version of a hold's id, which contains the time of its creation. Spec: RFC 9562 5.7."""


class LegalHoldGuard:
    """The retention guard of this app: see `extensions.RetentionGuard`."""

    def preserve_claims(
        self, subject: PairwiseSubject, names: Collection[str], *, now: datetime
    ) -> ClaimPreservation | None:
        hold = find_current_hold(subject, now=now)
        if hold is None:
            return None
        kept_names = preserve_replaced_claims(subject, names, now=now)
        return ClaimPreservation(key_name=find_hold_key_name(hold), kept_names=kept_names)

    def may_need_key(self, key_name: str, *, now: datetime) -> bool:
        hold_id = uuid.UUID(key_name.removeprefix(HOLD_PREFIX))
        if LegalHold.objects.filter(pk=hold_id).exists():
            return list_active_holds(now=now).filter(pk=hold_id).exists()
        # An unknown hold is just being placed, or its transaction was rolled back: its age decides.
        return hold_id.version != UUID7_VERSION or hold_id >= randomness.lowest_uuid7(now)

    def list_held_subjects(self, *, now: datetime) -> QuerySet[Any, Any]:
        return list_active_holds(now=now).order_by().values("subject")

    def count_holds(self, *, now: datetime) -> int:
        return list_active_holds(now=now).count()


LEGAL_HOLD_GUARD = LegalHoldGuard()
