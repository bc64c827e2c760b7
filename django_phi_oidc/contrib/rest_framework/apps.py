"""Authentication and permissions for Django REST framework."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class RestFrameworkConfig(AppConfig):
    """Authentication and permissions for Django REST framework."""

    name = "django_phi_oidc.contrib.rest_framework"
    label = "phi_oidc_rest_framework"
    verbose_name = gettext_lazy("Django REST framework")
    default_auto_field = "django.db.models.BigAutoField"
