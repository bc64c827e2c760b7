"""Pages of the admin for officers and the help desk."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup


class OfficerAdminConfig(FeatureConfig):
    """Pages of the admin for officers and the help desk."""

    default = True
    name = "django_phi_oidc.contrib.officer_admin"
    label = "phi_oidc_officer_admin"
    verbose_name = gettext_lazy("Overview")
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.run_session_end_jobs": 1,
        "phi_oidc.update_overview": 6,
    }
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: ("phi_oidc_officer_admin.end_many_oidcsessions",),
        OfficerGroup.SECURITY_OFFICER: ("phi_oidc_officer_admin.end_many_oidcsessions",),
    }
