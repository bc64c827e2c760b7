"""Links of existing accounts, many at once."""

from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig


class SubjectLinksConfig(FeatureConfig):
    """Links of existing accounts, many at once."""

    default = True
    name = "django_phi_oidc.contrib.subject_links"
    label = "phi_oidc_subject_links"
    verbose_name = gettext_lazy("Account links")
    link_sources: ClassVar[tuple[str, ...]] = ("subject_link_csv",)
