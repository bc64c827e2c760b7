"""The authentication backend: mozilla-django-oidc's hooks, our rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables
from mozilla_django_oidc.auth import OIDCAuthenticationBackend as MozillaBackend

from .. import conf
from .._internal.clock import now
from ..crypto import keyring
from ..errors import UserInactive
from ..subjects.linking import LinkedAccount, create_opaque_username, get_or_create_account
from .code_exchange import VerifiedSignIn


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlassCredentials:
    """What was given at the door for the local account; no other form can make it."""

    username: str
    password: str = field(repr=False)


class BreakGlassBackend(ModelBackend):
    """Lets the account in that BREAK_GLASS_ACCOUNT names, by its password, at the door of its own."""

    @sensitive_variables()
    def authenticate(  # type: ignore[override]  # answers to our own credential alone, as Django allows
        self, request: HttpRequest | None, *, break_glass: BreakGlassCredentials
    ) -> Any:
        """Return the user, or None; another name takes as long as a wrong password."""
        name, users = conf.break_glass_account(), get_user_model()._default_manager
        user: Any = None
        if name and constant_time_compare(break_glass.username, name):
            user = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
        if user is None:
            make_password(break_glass.password)
            return None
        return user if user.check_password(break_glass.password) and self.user_can_authenticate(user) else None

    async def aauthenticate(  # type: ignore[override]  # ModelBackend's takes passwords
        self, request: HttpRequest | None, *, break_glass: BreakGlassCredentials
    ) -> Any:
        """Do what authenticate does, for callers in an event loop."""
        return await sync_to_async(self.authenticate)(request, break_glass=break_glass)

    def get_user(self, user_id: Any) -> Any:
        """Return the account for as long as it is the one that is named, and active."""
        user: Any = super().get_user(user_id)
        return user if user is not None and user.get_username() == conf.break_glass_account() else None

    async def aget_user(self, user_id: Any) -> Any:
        """Do what get_user does, for callers in an event loop: ModelBackend's own would not ask it."""
        return await sync_to_async(self.get_user)(user_id)


class OIDCAuthenticationBackend(MozillaBackend):
    """Maps (issuer, `sub`) to a user, never an e-mail address.

    Host projects override `create_user(claims)`, `update_user(user, claims)` and `get_username(claims)`; claims are
    the declared ones. mozilla's other hooks are never called: overriding them is a check error.
    """

    @staticmethod
    def get_settings(attr: str, *args: Any) -> Any:
        """Answer mozilla's constructor, which runs at every permission check, without any of its settings.

        What only the network can tell (the endpoints) and what nobody may read here (the secret) is empty.
        """
        declared = next(iter(conf.providers().values()), None)
        answers = {
            "OIDC_OP_TOKEN_ENDPOINT": "",
            "OIDC_OP_USER_ENDPOINT": "",
            "OIDC_OP_JWKS_ENDPOINT": "",
            "OIDC_RP_CLIENT_ID": declared.client_id if declared else "",
            "OIDC_RP_CLIENT_SECRET": "",
            "OIDC_RP_SIGN_ALGO": declared.id_token_signed_response_alg[0] if declared else "",
        }
        return answers[attr] if attr in answers else getattr(settings, attr, *args)

    # Again here: the nearest of these decorators counts, and django.contrib.auth has one that hides less.
    @sensitive_variables()
    def authenticate(  # type: ignore[override]  # answers to our own credential alone, as Django allows
        self, request: HttpRequest | None, *, sign_in: VerifiedSignIn
    ) -> Any:
        """Return the user of a sign-in that was verified; `user.pairwise_link` tells the subject.

        Raises: AccountError: SubjectKeyMissing, NotProvisioned, UserInactive.
        """
        linked = self._get_or_create_account(sign_in)
        user: Any = linked.user
        if not self.user_can_authenticate(user):
            raise UserInactive
        if not linked.created:
            user = self.update_user(user, sign_in.claims)
        user.pairwise_link = linked
        return user

    async def aauthenticate(  # type: ignore[override]  # ModelBackend's takes passwords
        self, request: HttpRequest | None, *, sign_in: VerifiedSignIn
    ) -> Any:
        """Do what authenticate does, for callers in an event loop."""
        return await sync_to_async(self.authenticate)(request, sign_in=sign_in)

    def create_user(self, claims: Mapping[str, Any]) -> AbstractBaseUser:
        """Return a new user with an opaque name and nothing else about the person."""
        name = {self.UserModel.USERNAME_FIELD: self.get_username(claims)}
        user: AbstractBaseUser = self.UserModel._default_manager.create_user(**name)
        return user

    def get_username(self, claims: Mapping[str, Any]) -> str:
        """Return an opaque user name: `phi_` and 26 base32 characters."""
        return create_opaque_username()

    def get_user(self, user_id: Any) -> Any:
        """Return an active user: a deactivated one's live session is dead on its next request."""
        return ModelBackend.get_user(self, user_id)

    def _get_or_create_account(self, sign_in: VerifiedSignIn) -> LinkedAccount:
        provider = conf.providers().get(sign_in.provider)
        creates = provider is not None and provider.provisioning == "create"
        return get_or_create_account(
            issuer=sign_in.issuer,
            sub=sign_in.sub,
            keys=keyring.get_keys("subject"),
            create_user=(lambda: self.create_user(sign_in.claims)) if creates else None,
            origin=sign_in.origin,
            provider=sign_in.provider,
            now=now(),
        )
