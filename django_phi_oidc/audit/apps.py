"""The append-only audit log, sealed in a Merkle tree (RFC 6962)."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from .._internal.app_configs import FeatureConfig
from .._internal.officer_groups import OfficerGroup
from ..extensions import event_readers
from .declaration import AuditOptions


class AuditConfig(FeatureConfig):
    """The append-only audit log, sealed in a Merkle tree (RFC 6962)."""

    default = True
    name = "django_phi_oidc.audit"
    label = "phi_oidc_audit"
    verbose_name = gettext_lazy("Audit log")
    options = AuditOptions
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: (
            "phi_oidc_audit.view_auditevent",
            "phi_oidc_audit.export_auditevent",
            "phi_oidc_audit.lookup_auditevent",
            "phi_oidc_audit.view_auditcheckpoint",
            "phi_oidc_audit.view_setasideevent",
        ),
        OfficerGroup.SECURITY_OFFICER: (
            "phi_oidc_audit.view_auditevent",
            "phi_oidc_audit.export_auditevent",
            "phi_oidc_audit.lookup_auditevent",
            "phi_oidc_audit.view_auditcheckpoint",
            "phi_oidc_audit.view_setasideevent",
        ),
        OfficerGroup.HELP_DESK: ("phi_oidc_audit.lookup_auditevent",),
    }
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.drain_outbox": 1,
        "phi_oidc.seal": 1,
        "phi_oidc.export_tiles": 6,
        "phi_oidc.record_configuration": 6,
        "phi_oidc.create_partitions": 60,
        # The whole log in two weeks.
        "phi_oidc.verify": 60,
    }
    subcommands = ("audit", "configuration")

    def ready(self) -> None:
        from .outbox import OUTBOX_READER

        super().ready()
        event_readers.register(OUTBOX_READER)
