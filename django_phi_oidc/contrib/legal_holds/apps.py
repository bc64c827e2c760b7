"""Legal holds, which keep claims from erasure."""

from importlib import import_module

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from ...extensions import retention_guards


class LegalHoldsConfig(FeatureConfig):
    """Legal holds, which keep claims from erasure."""

    default = True
    name = "django_phi_oidc.contrib.legal_holds"
    label = "phi_oidc_legal_holds"
    verbose_name = gettext_lazy("Legal holds")
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: (
            "phi_oidc_legal_holds.view_legalhold",
            "phi_oidc_legal_holds.add_legalhold",
            "phi_oidc_legal_holds.change_legalhold",
            "phi_oidc_legal_holds.disclose_legalhold",
        ),
    }
    subcommands = ("hold",)

    def ready(self) -> None:
        # These modules import models.
        from ..common.accounting_suspension_sources import accounting_suspensions
        from ..common.personal_data_sources import personal_data_sources
        from .personal_data import LEGAL_HOLD_DATA, LEGAL_HOLD_SUSPENSIONS
        from .retention_guard import LEGAL_HOLD_GUARD

        super().ready()
        import_module(f"{self.name}.receivers")
        accounting_suspensions.register(LEGAL_HOLD_SUSPENSIONS)
        personal_data_sources.register(LEGAL_HOLD_DATA)
        retention_guards.register(LEGAL_HOLD_GUARD)
