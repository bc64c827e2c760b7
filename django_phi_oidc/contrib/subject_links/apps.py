"""Links of existing accounts: from a CSV file, or by a verified e-mail address."""

from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import account_sources
from .declaration import EmailLinkingDeclaration


class SubjectLinksConfig(FeatureConfig):
    """Links of existing accounts: from a CSV file, or by a verified e-mail address."""

    default = True
    name = "django_phi_oidc.contrib.subject_links"
    label = "phi_oidc_subject_links"
    verbose_name = gettext_lazy("Account links")
    provider_option = ("link_verified_email", EmailLinkingDeclaration)
    link_sources: ClassVar[tuple[str, ...]] = ("subject_link_csv",)

    def ready(self) -> None:
        # It imports models.
        from .account_source import verified_email_source

        super().ready()
        account_sources.register(verified_email_source)
