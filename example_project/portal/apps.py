"""The portal as a Django app."""

from django.apps import AppConfig

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
