"""What the app registers with the core: notices about changes, sign-ins and refusals."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ...audit.request_context import Actor
from ...extensions import AccountObserver, RefusedSignInHandler, SignIn, SignInObserver
from ...login.failures import LoginError, SignInAttempt
from ...login.state_cookie import AuthorizationState
from ...subjects.account_changes import AccountChange
from .devices import register_device
from .notices import (
    LONG_ABSENCE,
    find_notice_address,
    warn_user,
    write_address_notice,
    write_notices,
)
from .refusal_notices import warn_of_refusal


class NoticeWriter(AccountObserver):
    """Writes a notice about each change of an account, and at most one a day about suspicious
    attempts.
    """

    def record_changes(
        self, users: Sequence[Any], change: AccountChange, *, provider: str, now: datetime
    ) -> None:
        write_notices(users, change, provider=provider, now=now)

    def record_address_change(self, user: Any, former_address: str, *, now: datetime) -> None:
        write_address_notice(user, former_address, now=now)

    def record_suspicion(
        self, user: Any, suspicion: AccountChange, *, provider: str, now: datetime
    ) -> None:
        warn_user(user, suspicion, provider=provider, now=now)


class NewDeviceObserver(SignInObserver):
    """Registers the browsers of users who get notices, and writes those about unusual sign-ins."""

    def record_sign_in(self, sign_in: SignIn, get_device: Callable[[], str]) -> None:
        if not find_notice_address(sign_in.user):
            return
        is_new_device = register_device(sign_in.user, get_device(), now=sign_in.now)
        is_absence_long = sign_in.now - sign_in.last_seen_at >= LONG_ABSENCE
        if sign_in.is_new_link:
            return
        if is_new_device:
            change = AccountChange.NEW_DEVICE
        elif is_absence_long:
            change = AccountChange.LONG_ABSENCE
        else:
            return
        write_notices([sign_in.user], change, provider=sign_in.provider.name, now=sign_in.now)


class RefusalNoticeWriter(RefusedSignInHandler):
    """Writes a notice about a refused sign-in if the provider has identified the person."""

    def record_refusal(
        self,
        actor: Actor,
        error: LoginError,
        attempt: SignInAttempt,
        pending: AuthorizationState | None,
    ) -> None:
        warn_of_refusal(actor, error, attempt, pending)


notice_writer = NoticeWriter()
new_device_observer = NewDeviceObserver()
refusal_notice_writer = RefusalNoticeWriter()
