"""The authentication backend for verified OIDC sign-ins, with mozilla-django-oidc's hooks."""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables
from mozilla_django_oidc.auth import OIDCAuthenticationBackend as MozillaBackend

from .. import conf
from .._internal.clock import now
from ..audit.request_context import use_origin
from ..claims.account_columns import list_claims_in_account
from ..crypto import keyring
from ..errors import AccountError, AccountNotSaved, Code, PhiOidcError
from ..sessions.activity import pop_checked_user
from ..subjects.account_changes import AccountChange, report_suspicion
from ..subjects.account_fields import build_account_fields, create_username
from ..subjects.linking import get_or_create_account
from .account_sources import find_account_source
from .code_exchange import VerifiedSignIn

logger = logging.getLogger("django_phi_oidc.login")


class OIDCAuthenticationBackend(MozillaBackend):
    """Maps (issuer, `sub`) to a user. Claims never do, unless an app has registered an account
    source, which links a first sign-in.

    Host projects may override `create_user(claims)`, `update_user(user, claims)` and
    `get_username(claims)`, which get the declared claims: docs/how-to/custom-user-models.md.
    mozilla-django-oidc's other hooks are never called: overriding them is a check error.
    """

    provider = ""
    """The name of the provider of this sign-in, for the hooks."""

    def __init__(self) -> None:
        # Without the settings that the base class reads. This runs at every permission check.
        self.UserModel = get_user_model()

    # Repeated here: the innermost decorator applies, and django.contrib.auth has one that hides
    # less.
    @sensitive_variables()
    def authenticate(  # type: ignore[override]  # accepts only these credentials, as Django allows
        self, request: HttpRequest | None, *, sign_in: VerifiedSignIn
    ) -> Any:
        """Return the user, with the subject in `user.pairwise_link`. Raises: AccountError.

        `user.claims_in_account` names the claims that a hook of the project has copied into columns
        of the account.
        """
        self.provider = sign_in.provider
        provider = conf.providers().get(sign_in.provider)
        may_create = provider is not None and provider.provisioning == "create"
        account_match = None
        if provider is not None and sign_in.account_identifier:
            account_source = find_account_source(provider, now=now())
            if account_source is not None:
                account_match = account_source.create_match(
                    sign_in.account_identifier, provider=provider, now=now()
                )
        # Not the user of the request: another person may have signed in to this browser before.
        origin = sign_in.origin._replace(actor="", session="")
        with _log_unsaved_account(), use_origin(lambda: origin):
            linked = get_or_create_account(
                issuer=sign_in.issuer,
                sub=sign_in.sub,
                keys=keyring.get_keys("subject"),
                create_user=(lambda: self.create_user(sign_in.claims)) if may_create else None,
                account_match=account_match,
                origin=sign_in.origin,
                provider=sign_in.provider,
                now=now(),
            )
            user: Any = linked.user
            if not self.user_can_authenticate(user):
                report_suspicion(
                    user, AccountChange.SIGN_IN_REFUSED, provider=sign_in.provider, now=now()
                )
                raise AccountError(Code.USER_INACTIVE)
            if not linked.is_new_user:
                with use_origin(lambda: origin._replace(actor=str(user.pk))):
                    user = self._update_user(user, sign_in.claims)
        user.pairwise_link = linked
        has_hooks = (
            self._has_own("create_user")
            or self._has_own("update_user")
            or self._has_own("get_username")
        )
        if has_hooks:
            user.claims_in_account = list_claims_in_account(user, sign_in.claims)
        else:
            user.claims_in_account = ()

        return user

    # ModelBackend's would not call the method above.
    aauthenticate = BaseBackend.aauthenticate  # type: ignore[assignment]  # it takes passwords

    def create_user(self, claims: Mapping[str, Any]) -> AbstractBaseUser:
        """Return a new user with an opaque name and no data about the person: called at a first
        sign-in.

        A unique e-mail address is opaque too, and cannot be delivered to. Any exception refuses the
        sign-in.
        """
        fields = build_account_fields(self.UserModel, username=self.get_username(claims))
        user: AbstractBaseUser = self.UserModel._default_manager.create_user(**fields)
        return user

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        """Return the user: called at each sign-in that does not create the account. Any exception
        refuses it.
        """
        return user

    def get_username(self, claims: Mapping[str, Any]) -> str:
        """Return the value of USERNAME_FIELD of a new account, by default an opaque one."""
        return create_username(self.UserModel)

    def get_user(self, user_id: Any) -> Any:
        """Return the user if active: deactivation ends the user's sessions at their next
        request.
        """
        user = pop_checked_user(user_id)
        if user is None:
            return ModelBackend.get_user(self, user_id)

        if self.user_can_authenticate(user):
            return user
        return None

    def _has_own(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(OIDCAuthenticationBackend, hook)

    def _update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        """Call the hook of the project in a transaction; without a hook there is none. Raises:
        AccountNotSaved.
        """
        using = router.db_for_write(self.UserModel)
        try:
            with transaction.atomic(using=using) if self._has_own("update_user") else nullcontext():
                updated = self.update_user(user, claims)
                if not isinstance(updated, self.UserModel):
                    raise TypeError("update_user must return the user.")
                return updated
        except (PhiOidcError, PermissionDenied):
            raise
        except Exception as error:
            raise AccountNotSaved from error


@contextmanager
def _log_unsaved_account() -> Iterator[None]:
    """Log the class and the place of the exception, without its message: databases repeat the
    values of the row.
    """
    try:
        yield
    except AccountNotSaved as error:
        if cause := error.__cause__:
            place = "".join(traceback.format_tb(cause.__traceback__))
            logger.error("An account was not saved: %s\n%s", type(cause).__name__, place)  # noqa: TRY400 -- as above
        raise
