"""Diagnosis of a set-up and of its provider."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class DoctorConfig(FeatureConfig):
    """Diagnosis of a set-up and of its provider."""

    default = True
    name = "django_phi_oidc.contrib.doctor"
    label = "phi_oidc_doctor"
    verbose_name = gettext_lazy("Doctor")
    subcommands = (
        "doctor",
        "register",
    )
