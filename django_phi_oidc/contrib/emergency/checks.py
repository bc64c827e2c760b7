"""System checks of `EMERGENCY`."""

import os
from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import Tags
from django.db import DatabaseError

from ..._internal.check_messages import Messages, error, in_settings, register_check, warning
from ...subjects.local_accounts import list_local_account_names
from ..common.mail_settings import (
    does_mail_deliver,
    get_mail_backend_line,
    get_mail_timeout_line,
    get_mail_timeout_seconds,
)
from ..common.option_checks import check_option
from . import conf as emergency_conf
from .notifications import RETRY_DELAY
from .queries import OPEN_PERMISSION, can_open_any


@register_check(Tags.security)
def check_emergency_mails(**kwargs: Any) -> Messages:
    """E002: there is no address for the mails."""
    yield from check_option(emergency_conf.emergency)


@register_check(Tags.security)
def check_emergency(**kwargs: Any) -> Messages:
    """E027: a spool that can't be written; W027, W028: mails that are not delivered, or block the
    worker.
    """
    declared = emergency_conf.emergency()
    if declared is None:
        return
    if declared.spool and not os.access(declared.spool.parent, os.W_OK | os.X_OK):
        text = (
            "PHI_OIDC['EMERGENCY']: the folder of the spool does not "
            "exist, or this account can't write to it."
        )
        hint = f"As the account that runs the portal: mkdir -p -m 700 {declared.spool.parent}"
        yield error(27, text, hint)
    timeout = get_mail_timeout_seconds()
    limit = int(RETRY_DELAY.total_seconds())
    if not does_mail_deliver():
        text = (
            "PHI_OIDC['EMERGENCY']: the mail backend does not "
            "deliver, so the privacy officer gets no mail."
        )
        yield warning(27, text, in_settings(get_mail_backend_line()))
    elif not timeout or limit <= timeout:
        text = (
            "PHI_OIDC['EMERGENCY']: the mail timeout must be less than "
            f"{limit} s; a slow mail server blocks all."
        )
        yield warning(28, text, in_settings(get_mail_timeout_line()))


@register_check(Tags.database, deploy=True)
def check_local_emergency_permissions(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> Messages:
    """W062: a local account that can sign in can't open emergency access, without which it sees no
    record.
    """
    names = list_local_account_names()
    if not names or emergency_conf.emergency() is None or "default" not in (databases or ()):
        return
    model = get_user_model()
    try:
        accounts = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names})
        for account in accounts.order_by("pk"):
            can_sign_in = account.is_active and account.has_usable_password()
            if can_sign_in and not can_open_any(account):
                text = (
                    f"The local account {account.get_username()!r} has no permission to open "
                    "emergency access, so it sees no record."
                )
                hint = f"In the admin, give it the permission {OPEN_PERMISSION}."
                yield warning(62, text, hint)
    except DatabaseError:
        # W061 reports it.
        return
