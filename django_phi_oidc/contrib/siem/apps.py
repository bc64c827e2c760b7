"""Delivery of events to a SIEM."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from ...extensions import audit_log_copies, event_readers
from .declaration import SIEMOptions


class SIEMConfig(FeatureConfig):
    """Delivery of events to a SIEM."""

    default = True
    name = "django_phi_oidc.contrib.siem"
    label = "phi_oidc_siem"
    verbose_name = gettext_lazy("Delivery of the audit log")
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.SECURITY_OFFICER: (
            "phi_oidc_siem.view_sinkcursor",
            "phi_oidc_siem.deliver_sinkcursor",
        ),
    }
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.deliver": 1,
    }
    subcommands = ("delivery",)
    options = SIEMOptions

    def ready(self) -> None:
        from . import conf
        from .sink_reader import SINK_READER

        super().ready()
        audit_log_copies.register(conf.has_sinks)
        event_readers.register(SINK_READER)
