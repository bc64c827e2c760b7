"""Emergency accesses in exports and erasures of the data of the person who opened them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from ...audit.events import Origin
from ..common.personal_data_sources import PersonalDataExport, PersonalDataSource
from ..common.serialized_rows import serialize_row
from .lifecycle import close_emergencies
from .models import CloseReason, EmergencyAccess

_FIELDS = (
    "is_local",
    "permissions",
    "purpose",
    "opened_at",
    "expires_at",
    "closed_at",
    "reviewed_at",
)


class EmergencyData(PersonalDataSource):
    """Record and reason are about others: they are not exported.

    Like the audit log, the row is about access to records of others, and must be reviewed: an
    erasure closes an open access, and keeps the row.
    """

    def export_account(self, export: PersonalDataExport) -> Mapping[str, Any]:
        rows = (
            EmergencyAccess.objects.filter(actor=str(export.user.pk))
            .defer("reason", "note")
            .order_by("pk")
        )
        emergencies = []
        for row in rows:
            emergencies.append(
                {
                    "id": str(row.pk),
                    **serialize_row(row, *_FIELDS, optional=("close_reason", "verdict")),
                }
            )
        return {"emergencies": emergencies}

    def erase_account(
        self, user: AbstractBaseUser, *, origin: Origin, now: datetime
    ) -> Mapping[str, int]:
        opened = EmergencyAccess.objects.currently_open(now=now).filter(user=user.pk)
        ids = list(opened.values_list("pk", flat=True))
        close_emergencies(ids, CloseReason.ADMINISTRATOR, origin=origin, now=now)
        return {}


EMERGENCY_DATA = EmergencyData()
