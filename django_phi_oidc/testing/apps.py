"""Mock provider, attack kit and test runner, for settings of tests and demos."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class TestingConfig(AppConfig):
    """Mock provider, attack kit and test runner, for settings of tests and demos."""

    name = "django_phi_oidc.testing"
    label = "phi_oidc_testing"
    verbose_name = gettext_lazy("Tests")
    default_auto_field = "django.db.models.BigAutoField"
