"""The accounts that BREAK_GLASS_ACCOUNTS lists, and the authentication backend for their
passwords.
"""

from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.contrib.auth.hashers import make_password
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

from . import conf


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlassCredentials:
    """The input of the break-glass form. No other form creates it, so no other form can use the
    password.
    """

    username: str
    password: str = field(repr=False)


class BreakGlassBackend(ModelBackend):
    """Authenticates the accounts that BREAK_GLASS_ACCOUNTS lists by their passwords."""

    @sensitive_variables()
    def authenticate(  # type: ignore[override]  # accepts only these credentials, as Django allows
        self, request: HttpRequest | None, *, break_glass: BreakGlassCredentials
    ) -> Any:
        """Return the user, or None. A wrong name takes as long as a wrong password."""
        user: Any = find_local_account(break_glass.username)
        if user is None:
            make_password(break_glass.password)
            return None

        if user.check_password(break_glass.password) and self.user_can_authenticate(user):
            return user
        return None

    def get_user(self, user_id: Any) -> Any:
        """Return the account while BREAK_GLASS_ACCOUNTS lists it, and it is active."""
        user: Any = super().get_user(user_id)
        if user is not None and user.get_username() in conf.break_glass_accounts():
            return user
        return None

    # ModelBackend's would not call the methods above.
    aauthenticate = BaseBackend.aauthenticate  # type: ignore[assignment]  # it takes passwords
    aget_user = BaseBackend.aget_user


def find_local_account(username: str) -> Any:
    """Return the account of that name, active or not, if BREAK_GLASS_ACCOUNTS lists it."""
    # Each name is compared, so that the time does not show which one is listed.
    if not sum(constant_time_compare(username, name) for name in conf.break_glass_accounts()):
        return None
    user_model = get_user_model()
    return user_model._default_manager.filter(**{user_model.USERNAME_FIELD: username}).first()
