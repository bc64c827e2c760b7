"""The known networks of an account in exports and erasures of the data of a person."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from ...audit.events import Origin
from ..common.personal_data_sources import PersonalDataExport, PersonalDataSource
from ..common.serialized_rows import serialize_row
from .models import KnownNetwork


class KnownNetworkData(PersonalDataSource):
    """The networks from which the account has signed in."""

    def export_account(self, export: PersonalDataExport) -> Mapping[str, Any]:
        networks = KnownNetwork.objects.filter(user=export.user.pk).order_by("pk")
        return {"networks": [serialize_row(row, "network", "last_used_at") for row in networks]}

    def erase_account(
        self, user: AbstractBaseUser, *, origin: Origin, now: datetime
    ) -> Mapping[str, int]:
        KnownNetwork.objects.filter(user=user.pk).delete()
        return {}


KNOWN_NETWORK_DATA = KnownNetworkData()
