"""Activation codes in exports and erasures of the data of a person."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from ...audit.events import Origin
from ..common.personal_data_sources import PersonalDataExport, PersonalDataSource
from ..common.serialized_rows import serialize_row
from .invitations import revoke_activation_codes
from .models import ActivationCode

_FIELDS = ("provider", "created_at", "expires_at", "redeemed_at", "revoked_at")


class InvitationData(PersonalDataSource):
    """The author of an invitation is another person, and not exported."""

    erased_names = ("invitations",)

    def export_account(self, export: PersonalDataExport) -> Mapping[str, Any]:
        codes = ActivationCode.objects.filter(user=export.user.pk).order_by("pk")
        return {"invitations": [serialize_row(code, *_FIELDS) for code in codes]}

    def erase_account(
        self, user: AbstractBaseUser, *, origin: Origin, now: datetime
    ) -> Mapping[str, int]:
        codes = ActivationCode.objects.filter(user=user.pk)
        # Valid codes are revoked first: otherwise the person could redeem one and be linked again.
        revoke_activation_codes(codes, reason="erased", origin=origin, now=now)
        count, _ = codes.delete()
        return {"invitations": count}

    def count_account(self, user: AbstractBaseUser) -> Mapping[str, int]:
        return {"invitations": ActivationCode.objects.filter(user=user.pk).count()}


INVITATION_DATA = InvitationData()
