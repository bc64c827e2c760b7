"""Mails to persons about changes of their accounts."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class NoticesConfig(FeatureConfig):
    """Mails to persons about changes of their accounts."""

    default = True
    name = "django_phi_oidc.contrib.notices"
    label = "phi_oidc_notices"
    verbose_name = gettext_lazy("Account notices")
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.send_notices": 1,
    }
