"""The app configuration."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

from django.utils.translation import gettext_lazy

from ._internal.app_configs import FeatureConfig
from .config.core_options import CoreOptions
from .extensions import event_words


class PHIOIDCConfig(FeatureConfig):
    """Sign-in with OpenID Connect for portals that hold protected health information."""

    default = True
    name = "django_phi_oidc"
    verbose_name = gettext_lazy("Sign-in and PHI")
    options = CoreOptions
    requires = ("django_phi_oidc.audit",)
    beat: ClassVar[Mapping[str, float]] = {
        "phi_oidc.sweep_revocations": 1,
        # Twice a minute: an abandoned session must not stay valid for more than a minute.
        "phi_oidc.end_overdue": 3,
        "phi_oidc.scrub": 1,
        # Reads all live sessions.
        "phi_oidc.check_sessions": 30,
        "phi_oidc.apply_retention": 60,
        "phi_oidc.prune": 60,
    }
    subcommands = (
        "apps",
        "scrub",
        "sessions",
        "subject",
    )
    subcommands_package = "management.subcommands"

    def ready(self) -> None:
        event_words.register(import_module(f"{self.name}.event_words").EVENT_WORDS)
        import_module(f"{self.name}.checks").register_checks()
        import_module(f"{self.name}.receivers")
        # A worker has imported Celery before Django, also one that does not run the tasks of this
        # app.
        if "celery" in sys.modules:
            import_module(f"{self.name}.leak_guard.task_receivers")
