"""Activation codes for accounts without a subject."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ..._internal.officer_groups import OfficerGroup
from ...extensions import account_observers, refused_sign_in_handlers
from .declaration import InvitationsOptions


class InvitationsConfig(FeatureConfig):
    """Activation codes for accounts without a subject."""

    default = True
    name = "django_phi_oidc.contrib.invitations"
    label = "phi_oidc_invitations"
    verbose_name = gettext_lazy("Activation codes")
    options = InvitationsOptions
    requires = ("django_phi_oidc.contrib.subject_links",)
    officer_permissions = {  # noqa: RUF012 -- read only, as of Django
        OfficerGroup.PRIVACY_OFFICER: ("phi_oidc_invitations.view_activationcode",),
        OfficerGroup.SECURITY_OFFICER: ("phi_oidc_invitations.view_activationcode",),
        OfficerGroup.HELP_DESK: (
            "phi_oidc_invitations.view_activationcode",
            "phi_oidc_invitations.issue_activationcode",
        ),
    }
    nested_subcommands: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "subject": ("subject_invite",),
    }

    def ready(self) -> None:
        from ..common.personal_data_sources import personal_data_sources
        from .observers import (
            activation_code_observer,
            activation_page_handler,
        )
        from .personal_data import INVITATION_DATA

        super().ready()
        account_observers.register(activation_code_observer)
        personal_data_sources.register(INVITATION_DATA)
        refused_sign_in_handlers.register(activation_page_handler)
