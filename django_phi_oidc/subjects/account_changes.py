"""Changes of an account and suspicious attempts, which apps may act on, for example by a mail."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from ..extensions import account_observers


class AccountChange(StrEnum):
    """What happened to an account."""

    LINKED = "linked"
    UNLINKED = "unlinked"
    NEW_DEVICE = "new_device"
    LONG_ABSENCE = "long_absence"
    SIGN_IN_REFUSED = "sign_in_refused"
    STEP_UP_REFUSED = "step_up_refused"
    CODE_REFUSED = "code_refused"
    PASSWORD_REFUSED = "password_refused"
    EMAIL_CHANGED = "email_changed"
    PASSWORD_CHANGED = "password_changed"
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    SESSIONS_ENDED = "sessions_ended"


def report_changes(
    users: Sequence[Any], change: AccountChange, *, provider: str, now: datetime
) -> None:
    """Report a change of these accounts. Requires: the transaction of the change."""
    for observer in account_observers:
        observer.record_changes(users, change, provider=provider, now=now)


def report_address_change(user: Any, former_address: str, *, now: datetime) -> None:
    """Report another e-mail address of the account. Requires: the transaction of the change."""
    for observer in account_observers:
        observer.record_address_change(user, former_address, now=now)


def report_suspicion(user: Any, suspicion: AccountChange, *, provider: str, now: datetime) -> None:
    """Report a suspicious attempt on the account, which is refused."""
    for observer in account_observers:
        observer.record_suspicion(user, suspicion, provider=provider, now=now)
