"""Diagnosis of a set-up and of its provider."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class DoctorConfig(AppConfig):
    """Diagnosis of a set-up and of its provider."""

    name = "django_phi_oidc.contrib.doctor"
    label = "phi_oidc_doctor"
    verbose_name = gettext_lazy("Doctor")
    default_auto_field = "django.db.models.BigAutoField"
