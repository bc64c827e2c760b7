"""Generation and rotation of keys."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class KeyRotationConfig(AppConfig):
    """Generation and rotation of keys."""

    name = "django_phi_oidc.contrib.key_rotation"
    label = "phi_oidc_key_rotation"
    verbose_name = gettext_lazy("Key rotation")
    default_auto_field = "django.db.models.BigAutoField"
