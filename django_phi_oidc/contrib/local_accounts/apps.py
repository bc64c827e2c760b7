"""Accounts that sign in with a password while the provider is unavailable."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import local_account_sources, sign_in_observers
from .declaration import LocalAccountsOptions


class LocalAccountsConfig(FeatureConfig):
    """Accounts that sign in with a password while the provider is unavailable."""

    default = True
    name = "django_phi_oidc.contrib.local_accounts"
    label = "phi_oidc_local_accounts"
    verbose_name = gettext_lazy("Local accounts")
    options = LocalAccountsOptions

    def ready(self) -> None:
        from ..common.personal_data_sources import personal_data_sources
        from .declared_accounts import DECLARED_ACCOUNTS
        from .observers import NETWORK_OBSERVER
        from .personal_data import KNOWN_NETWORK_DATA

        super().ready()
        local_account_sources.register(DECLARED_ACCOUNTS)
        personal_data_sources.register(KNOWN_NETWORK_DATA)
        sign_in_observers.register(NETWORK_OBSERVER)
