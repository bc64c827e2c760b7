"""Legal holds in exports of the data of a person, and in the accounting of disclosures."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ... import conf
from ...claims.models import FOREVER, StoredClaim
from ...claims.retention_limits import get_expiry
from ..common.personal_data_sources import PersonalDataExport, PersonalDataSource
from ..common.serialized_rows import serialize_row
from .legal_holds import find_suspended_purposes, list_active_holds
from .models import LegalHold


class LegalHoldData(PersonalDataSource):
    """The reason of a hold may be about others, and is not exported. An erasure is refused while a
    hold is active, and keeps the row of one that has ended.
    """

    def export_subjects(self, export: PersonalDataExport) -> Mapping[Any, Mapping[str, Any]]:
        holds = LegalHold.objects.filter(subject__in=export.subjects).order_by("placed_at")
        if export.hides_suspensions:
            holds = holds.filter(suspended_until=None)
        members: dict[Any, dict[str, Any]] = {}
        for subject in export.subjects:
            members[subject.pk] = {"holds": []}
        for hold in holds:
            serialized = serialize_row(hold, "placed_at", "until", "released_at")
            members[hold.subject_id]["holds"].append(serialized)
        return members


class LegalHoldSuspensions:
    """The source of suspensions of this app: see `AccountingSuspensionSource`."""

    def find_suspended_purposes(self, user_pk: Any, *, now: datetime) -> Mapping[str, datetime]:
        return find_suspended_purposes(user_pk, now=now)

    def hide_suspensions(
        self, claims: Sequence[StoredClaim], *, now: datetime
    ) -> list[StoredClaim]:
        """Return the claims that would be stored without the holds that suspend the accounting."""
        others = list_active_holds(now=now).filter(
            suspended_until=None, subject__in={claim.subject_id for claim in claims}
        )
        ends: dict[Any, datetime] = {}
        for subject_id, until in others.values_list("subject", "until"):
            end = until or FOREVER
            ends[subject_id] = max(end, ends.get(subject_id, end))

        declarations = conf.claims()
        stored = []
        for claim in claims:
            claim.held_until = ends.get(claim.subject_id)
            if claim.held_until or get_expiry(claim, declarations.get(claim.name)) > now:
                stored.append(claim)
        return stored


LEGAL_HOLD_DATA = LegalHoldData()
LEGAL_HOLD_SUSPENSIONS = LegalHoldSuspensions()
