"""System checks of `ACCOUNT_NOTICES`."""

from typing import Any

from django.core.checks import Tags

from ..._internal.check_messages import Messages, in_settings, register_check, warning
from ..common.mail_settings import (
    does_mail_deliver,
    get_mail_backend_line,
    get_mail_timeout_line,
    get_mail_timeout_seconds,
)
from ..common.option_checks import check_option
from . import conf
from .notices import RETRY_DELAY


@register_check(Tags.security)
def check_account_notices_function(**kwargs: Any) -> Messages:
    """E002: the function of the project cannot be imported."""
    yield from check_option(conf.account_notices)


@register_check(Tags.security)
def check_account_notices(**kwargs: Any) -> Messages:
    """W076: persons get no notice when an identity is linked to their account."""
    if conf.account_notices() is None:
        text = (
            "ACCOUNT_NOTICES is off: persons do not learn of a "
            "sign-in that is added to their account."
        )
        yield warning(76, text, in_settings('PHI_OIDC["ACCOUNT_NOTICES"] = True'))


@register_check(Tags.security, deploy=True)
def check_mail_of_account_notices(**kwargs: Any) -> Messages:
    """W077, W078: notices are not delivered, or block the worker."""
    if conf.account_notices() is None:
        return
    timeout = get_mail_timeout_seconds()
    limit = int(RETRY_DELAY.total_seconds())
    if not does_mail_deliver():
        text = "The mail backend does not deliver, so persons get no notices about their accounts."
        yield warning(77, text, in_settings(get_mail_backend_line()))
    elif not timeout or limit <= timeout:
        text = (
            f"The mail timeout must be less than {limit} s: a slow mail server delays all notices."
        )
        yield warning(78, text, in_settings(get_mail_timeout_line()))
