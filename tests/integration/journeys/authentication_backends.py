"""Host projects' backends, as good and as bad as they come."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from django_phi_oidc import conf
from django_phi_oidc.backends import OIDCAuthenticationBackend


class Raising(OIDCAuthenticationBackend):
    """A hook of the host's that fails after everything was verified."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        raise RuntimeError("the host's own fault")


class Refusing(OIDCAuthenticationBackend):
    """A host that lets nobody in."""

    def authenticate(self, request: Any, *, sign_in: Any, **kwargs: Any) -> None:
        return None


class Deleting(OIDCAuthenticationBackend):
    """A person who comes back and is deleted before the session opens."""

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        type(user).objects.filter(pk=user.pk).delete()
        return user


class Naming(OIDCAuthenticationBackend):
    """A host that overrides every hook, and writes down which claims each was given."""

    def get_username(self, claims: Mapping[str, Any]) -> str:
        return f"born-{claims['birthdate']}"

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        user: Any = super().create_user(claims)
        user.first_name = ",".join(sorted(claims))
        user.save()
        return user

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        user.last_name = ",".join(sorted(claims))
        user.save()
        return user


class Showing(OIDCAuthenticationBackend):
    """A host that writes down, in clear, what it was given of a person."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        user: Any = super().create_user(claims)
        user.last_name = json.dumps(claims)
        user.save()
        return user


class Listening(OIDCAuthenticationBackend):
    """A host that tells the log whatever it was given beyond what is declared."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        more = {name: value for name, value in claims.items() if name not in conf.claims()}
        logging.getLogger("host").warning("Given beyond what is declared: %s", more)
        return super().create_user(claims)
