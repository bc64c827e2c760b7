"""The portal as a Django app."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from django_phi_oidc import conf

from . import celery  # noqa: F401 -- by it the app's tasks find their broker, in every process


class PortalConfig(AppConfig):
    """The pages, and the commands around them."""

    name = "portal"

    def ready(self) -> None:
        """Refuse to start, in whatever process, with a declaration that can't be meant."""
        conf.providers()
        conf.claims()
        conf.trusted_proxies()


@checks.register
def keys_that_nothing_reads(**kwargs: Any) -> list[checks.CheckMessage]:
    """Say which keys stand in the environment for nothing."""
    names = settings.KEYS_THAT_NOTHING_READS
    if not names:
        return []
    return [checks.Warning(f"{', '.join(names)}: nothing in this version reads it.", id="portal.W001")]
