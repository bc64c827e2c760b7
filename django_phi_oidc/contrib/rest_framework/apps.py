"""Authentication and permissions for Django REST framework."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class RestFrameworkConfig(FeatureConfig):
    """Authentication and permissions for Django REST framework."""

    default = True
    name = "django_phi_oidc.contrib.rest_framework"
    label = "phi_oidc_rest_framework"
    verbose_name = gettext_lazy("Django REST framework")
    requires = ("django_phi_oidc.contrib.apis",)
