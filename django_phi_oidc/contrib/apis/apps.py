"""Access tokens at the portal's own APIs."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import access_token_sources, metadata_needs
from ..common.client_authentication import client_authenticators
from .declaration import APIsOptions


class APIsConfig(FeatureConfig):
    """Access tokens at the portal's own APIs."""

    default = True
    name = "django_phi_oidc.contrib.apis"
    label = "phi_oidc_apis"
    verbose_name = gettext_lazy("Access tokens")
    options = APIsOptions

    def ready(self) -> None:
        # These modules import joserfc.
        from .access_token import find_request_token
        from .api_tokens import list_needed_metadata
        from .client_tokens import authenticate_client

        super().ready()
        access_token_sources.register(find_request_token)
        client_authenticators.register(authenticate_client)
        metadata_needs.register(list_needed_metadata)
