"""Classes of a project that derive from those of mozilla-django-oidc."""

from typing import Any

from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.middleware import SessionRefresh
from mozilla_django_oidc.views import OIDCAuthenticationCallbackView


class PortalBackend(OIDCAuthenticationBackend):
    """Overrides hooks, and has a method of its own."""

    def create_user(self, claims: Any) -> Any:
        return self.helper(super().create_user(claims))

    def filter_users_by_claims(self, claims: Any) -> Any:
        return super().filter_users_by_claims(claims)

    def verify_claims(self, claims: Any) -> bool:
        return True

    @staticmethod
    def get_settings(attr: str, *args: Any) -> Any:
        return "portal" if attr == "OIDC_RP_CLIENT_ID" else OIDCAuthenticationBackend.get_settings(attr, *args)

    def helper(self, user: Any) -> Any:
        return user


class PortalRefresh(SessionRefresh):
    pass


class PortalCallback(OIDCAuthenticationCallbackView):
    @property
    def success_url(self) -> str:
        return "/"
