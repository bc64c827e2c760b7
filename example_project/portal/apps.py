"""The portal as a Django app."""

from django.apps import AppConfig

from django_phi_oidc import conf
from django_phi_oidc.audit import conf as audit_conf


class PortalConfig(AppConfig):
    """The pages and commands of the portal."""

    name = "portal"

    def ready(self) -> None:
        """Refuse to start with an invalid declaration, in every process."""
        conf.providers()
        conf.claims()
        audit_conf.trusted_proxies()
