"""Retention keys, whose destruction erases claims in backups too."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import claim_key_sources
from .declaration import RetentionKeysOptions


class RetentionKeysConfig(FeatureConfig):
    """Retention keys, whose destruction erases claims in backups too."""

    default = True
    name = "django_phi_oidc.contrib.retention_keys"
    label = "phi_oidc_retention_keys"
    verbose_name = gettext_lazy("Retention keys")
    group_members = ("KEYS", RetentionKeysOptions)

    def ready(self) -> None:
        # It imports models.
        from .claim_key_source import RETENTION_KEYS

        super().ready()
        claim_key_sources.register(RETENTION_KEYS)
