"""The backend of a host project that fills the fields of its user model."""

from collections.abc import Mapping
from typing import Any

from django_phi_oidc._internal import randomness
from django_phi_oidc.backends import OIDCAuthenticationBackend


class Badges(OIDCAuthenticationBackend):
    """Gives each account a badge."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        name = self.get_username(claims)
        return self.UserModel._default_manager.create_user(username=name, badge=randomness.token_b64url(9))
