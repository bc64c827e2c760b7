"""Mock provider, attack kit and test runner, for settings of tests and demos."""

from django.utils.translation import gettext_lazy

from .._internal.app_configs import FeatureConfig


class TestingConfig(FeatureConfig):
    """Mock provider, attack kit and test runner, for settings of tests and demos."""

    default = True
    name = "django_phi_oidc.testing"
    label = "phi_oidc_testing"
    verbose_name = gettext_lazy("Tests")
    subcommands = ("attack",)
