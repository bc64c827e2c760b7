"""Legal holds, which keep claims from erasure."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class LegalHoldsConfig(FeatureConfig):
    """Legal holds, which keep claims from erasure."""

    default = True
    name = "django_phi_oidc.contrib.legal_holds"
    label = "phi_oidc_legal_holds"
    verbose_name = gettext_lazy("Legal holds")
