"""Notices and known browsers in exports and erasures of the data of a person."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.views.decorators.debug import sensitive_variables

from ...audit.events import Origin
from ...errors import KeyRingError
from ..common.personal_data_sources import PersonalDataExport, PersonalDataSource
from ..common.serialized_rows import serialize_row
from .models import AccountNotice, KnownDevice


class NoticeData(PersonalDataSource):
    """Notices of the person are erased before the links, because each unlinking writes a notice."""

    @sensitive_variables()
    def export_account(self, export: PersonalDataExport) -> Mapping[str, Any]:
        devices = KnownDevice.objects.filter(user=export.user.pk).order_by("first_used_at", "pk")
        notices = AccountNotice.objects.filter(user=export.user.pk)
        return {
            "devices": [serialize_row(row, "first_used_at", "last_used_at") for row in devices],
            "notices": [_serialize_notice(row, export.unreadable_items) for row in notices],
        }

    def erase_before_unlinking(self, user: AbstractBaseUser) -> None:
        AccountNotice.objects.filter(user=user.pk).delete()

    def erase_account(
        self, user: AbstractBaseUser, *, origin: Origin, now: datetime
    ) -> Mapping[str, int]:
        KnownDevice.objects.filter(user=user.pk).delete()
        return {}


@sensitive_variables()
def _serialize_notice(notice: AccountNotice, unreadable_items: list[str]) -> dict[str, Any]:
    """Return the notice with its address. An address that can't be decrypted is left out, and added
    to unreadable_items.
    """
    sealed: Any = AccountNotice._meta.get_field("address")
    fields = serialize_row(notice, "kind", "provider", "occurred_at", "sent_at")
    try:
        return {**fields, "address": sealed.decrypt(notice)}
    except KeyRingError:
        unreadable_items.append(f"address of notice {notice.pk}")
        return fields


NOTICE_DATA = NoticeData()
