"""Authentication backends of host projects: well-behaved, refusing and failing ones."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError

from django_phi_oidc import conf
from django_phi_oidc.backends import OIDCAuthenticationBackend


class Raising(OIDCAuthenticationBackend):
    """Raises after the sign-in was verified."""

    def user_can_authenticate(self, user: Any) -> bool:
        raise RuntimeError("error of the host project")


class RaisingHooks(OIDCAuthenticationBackend):
    """Raises in both hooks, with a claim in the message."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        raise RuntimeError(f"not created: {claims['birthdate']}")

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        raise RuntimeError(f"not updated: {claims['birthdate']}")


class Vetoing(OIDCAuthenticationBackend):
    """Refuses a person as Django's backends do."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        raise PermissionDenied


class BreakingTransaction(OIDCAuthenticationBackend):
    """Handles a database error without a savepoint, after which PostgreSQL accepts no statement."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        user: Any = super().create_user(claims)
        try:
            type(user)(username=user.username).save(force_insert=True)
        except IntegrityError:
            return user


class HalfUpdating(OIDCAuthenticationBackend):
    """Fails after it has saved a part."""

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        user.last_name = "half"
        user.save()
        raise RuntimeError


class Forgetting(OIDCAuthenticationBackend):
    """Does not return the user."""

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> None:
        user.last_name = "half"
        user.save()


class Copying(OIDCAuthenticationBackend):
    """Copies a claim into a column of the account at each sign-in, and adds nothing to it at the first one."""

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        user.last_name = f"born {claims['birthdate']}"
        user.save()
        return user


class Refusing(OIDCAuthenticationBackend):
    """Refuses every sign-in."""

    def authenticate(self, request: Any, *, sign_in: Any, **kwargs: Any) -> None:
        return None


class Deleting(OIDCAuthenticationBackend):
    """Deletes a returning user before the session is created."""

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        type(user).objects.filter(pk=user.pk).delete()
        return user


class Naming(OIDCAuthenticationBackend):
    """Overrides every hook and stores the names of the claims that it received."""

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
    """Stores the claims that it received in plain text."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        user: Any = super().create_user(claims)
        user.last_name = json.dumps(claims)
        user.save()
        return user


class Listening(OIDCAuthenticationBackend):
    """Logs the undeclared claims that it received."""

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        more = {name: value for name, value in claims.items() if name not in conf.claims()}
        logging.getLogger("host").warning("Undeclared claims: %s", more)
        return super().create_user(claims)
