"""The app configuration."""

import sys
from importlib import import_module

from django.utils.translation import gettext_lazy

from ._internal.app_configs import FeatureConfig
from .config.core_options import CoreOptions


class PHIOIDCConfig(FeatureConfig):
    """Sign-in with OpenID Connect for portals that hold protected health information."""

    default = True
    name = "django_phi_oidc"
    verbose_name = gettext_lazy("Sign-in and PHI")
    options = CoreOptions

    def ready(self) -> None:
        import_module(f"{self.name}.checks").register_checks()
        import_module(f"{self.name}.receivers")
        # A worker has imported Celery before Django, also one that does not run the tasks of this
        # app.
        if "celery" in sys.modules:
            import_module(f"{self.name}.leak_guard.task_receivers")
