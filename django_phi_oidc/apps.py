"""The app configuration."""

import sys
from importlib import import_module

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class PHIOIDCConfig(AppConfig):
    """Sign-in with OpenID Connect for portals that hold protected health information."""

    name = "django_phi_oidc"
    verbose_name = gettext_lazy("Sign-in and PHI")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module(f"{self.name}.checks").register_checks()
        import_module(f"{self.name}.receivers")
        # A worker has imported Celery before Django, also one that does not run the tasks of this
        # app.
        if "celery" in sys.modules:
            import_module(f"{self.name}.leak_guard.task_receivers")
