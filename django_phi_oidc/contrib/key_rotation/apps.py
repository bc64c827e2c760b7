"""Generation and rotation of keys."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class KeyRotationConfig(FeatureConfig):
    """Generation and rotation of keys."""

    default = True
    name = "django_phi_oidc.contrib.key_rotation"
    label = "phi_oidc_key_rotation"
    verbose_name = gettext_lazy("Key rotation")
    subcommands = ("keys",)
