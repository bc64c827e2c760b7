"""Sign-ins that another site starts (OIDC Core 4)."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from .declaration import ThirdPartyLoginDeclaration


class ThirdPartyLoginConfig(FeatureConfig):
    """Sign-ins that another site starts (OIDC Core 4)."""

    default = True
    name = "django_phi_oidc.contrib.third_party_login"
    label = "phi_oidc_third_party_login"
    verbose_name = gettext_lazy("Third-party initiated login")
    provider_option = ("third_party_login", ThirdPartyLoginDeclaration)
