"""Security events of a provider (SSF 1.0)."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class SharedSignalsConfig(AppConfig):
    """Security events of a provider (SSF 1.0)."""

    name = "django_phi_oidc.contrib.shared_signals"
    label = "phi_oidc_shared_signals"
    verbose_name = gettext_lazy("Shared Signals")
    default_auto_field = "django.db.models.BigAutoField"
