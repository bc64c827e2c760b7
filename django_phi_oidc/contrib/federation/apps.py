"""Trust chains of OpenID Federation 1.0."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import metadata_sources
from .declaration import FederationDeclaration


class FederationConfig(FeatureConfig):
    """Trust chains of OpenID Federation 1.0."""

    default = True
    name = "django_phi_oidc.contrib.federation"
    label = "phi_oidc_federation"
    verbose_name = gettext_lazy("OpenID Federation")
    provider_option = ("federation", FederationDeclaration)

    def ready(self) -> None:
        from ..common.provider_findings import metadata_diagnosers
        from .metadata_source import trust_chain_source

        super().ready()
        metadata_sources.register(trust_chain_source)
        metadata_diagnosers.register(trust_chain_source)
