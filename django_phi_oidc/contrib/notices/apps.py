"""Mails to persons about changes of their accounts."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class NoticesConfig(AppConfig):
    """Mails to persons about changes of their accounts."""

    name = "django_phi_oidc.contrib.notices"
    label = "phi_oidc_notices"
    verbose_name = gettext_lazy("Account notices")
    default_auto_field = "django.db.models.BigAutoField"
