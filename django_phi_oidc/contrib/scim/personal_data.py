"""Provisioned accounts in exports and erasures of the data of a person."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from ...audit.events import Origin
from ..common.personal_data_sources import PersonalDataExport, PersonalDataSource
from ..common.serialized_rows import serialize_row
from .memberships import list_group_names
from .models import SCIMUser

_FIELDS = ("provider", "user_name", "active", "created_at", "changed_at", "deleted_at")


class ProvisionedData(PersonalDataSource):
    """What clients have stored about the account, with the names of its groups."""

    def export_account(self, export: PersonalDataExport) -> Mapping[str, Any]:
        user_pk = export.user.pk
        provisioned = []
        for row in SCIMUser.objects.filter(user=user_pk):
            provisioned.append(
                {
                    **serialize_row(row, *_FIELDS, optional=("external_id",)),
                    "groups": list_group_names(user_pk, provider=row.provider),
                }
            )
        return {"provisioned": provisioned}

    def erase_account(
        self, user: AbstractBaseUser, *, origin: Origin, now: datetime
    ) -> Mapping[str, int]:
        # Its client finds no user any more, and may create one for a new account.
        SCIMUser.objects.filter(user=user.pk).delete()
        return {}


PROVISIONED_DATA = ProvisionedData()
