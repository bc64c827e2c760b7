"""Mails to persons about changes of their accounts."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import account_observers, refused_sign_in_handlers, sign_in_observers
from .declaration import NoticesOptions


class NoticesConfig(FeatureConfig):
    """Mails to persons about changes of their accounts."""

    default = True
    name = "django_phi_oidc.contrib.notices"
    label = "phi_oidc_notices"
    verbose_name = gettext_lazy("Account notices")
    options = NoticesOptions
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.send_notices": 1,
    }

    def ready(self) -> None:
        from ..common.personal_data_sources import personal_data_sources
        from .observers import (
            new_device_observer,
            notice_writer,
            refusal_notice_writer,
        )
        from .personal_data import NOTICE_DATA

        super().ready()
        account_observers.register(notice_writer)
        personal_data_sources.register(NOTICE_DATA)
        refused_sign_in_handlers.register(refusal_notice_writer)
        sign_in_observers.register(new_device_observer)
