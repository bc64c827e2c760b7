"""Activation codes for accounts without a subject."""

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class InvitationsConfig(FeatureConfig):
    """Activation codes for accounts without a subject."""

    default = True
    name = "django_phi_oidc.contrib.invitations"
    label = "phi_oidc_invitations"
    verbose_name = gettext_lazy("Activation codes")
