"""Sessions that another authentication backend has begun."""

from collections.abc import Mapping
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ..._internal.app_configs import FeatureConfig
from ...extensions import foreign_session_observers


class ForeignSessionsConfig(FeatureConfig):
    """Sessions that another authentication backend has begun."""

    default = True
    name = "django_phi_oidc.contrib.foreign_sessions"
    label = "phi_oidc_foreign_sessions"
    verbose_name = gettext_lazy("Sessions of other backends")
    nested_subcommands: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sessions": ("sessions_foreign",),
    }

    def ready(self) -> None:
        # It imports models.
        from .foreign_sessions import revoke_foreign_tokens

        super().ready()
        foreign_session_observers.register(revoke_foreign_tokens)
