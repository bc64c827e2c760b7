"""Signed evidence for auditors."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class EvidenceConfig(FeatureConfig):
    """Signed evidence for auditors."""

    default = True
    name = "django_phi_oidc.contrib.evidence"
    label = "phi_oidc_evidence"
    verbose_name = gettext_lazy("Evidence")
    subcommands = ("evidence",)
