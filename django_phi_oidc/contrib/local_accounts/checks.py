"""System checks of `BREAK_GLASS_ACCOUNTS`."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import Tags
from django.db import DatabaseError
from django.utils.module_loading import import_string

from ..._internal.check_messages import (
    DEFAULT_CONNECT_HINT,
    Messages,
    error,
    in_settings,
    register_check,
    warning,
)
from ...extensions import access_overrides
from . import conf
from .backends import BreakGlassBackend


@register_check(Tags.security)
def check_local_account_backend(**kwargs: Any) -> Messages:
    """E024: the accounts or their backend are missing; W023: sign-in by password."""
    accounts = conf.break_glass_accounts()
    backends = [import_string(path) for path in settings.AUTHENTICATION_BACKENDS]
    if bool(accounts) != any(issubclass(backend, BreakGlassBackend) for backend in backends):
        path = f"{BreakGlassBackend.__module__}.{BreakGlassBackend.__name__}"

        if accounts:
            line = f'AUTHENTICATION_BACKENDS += ["{path}"]'
        else:
            line = 'PHI_OIDC["BREAK_GLASS_ACCOUNTS"] = ["…"]'

        yield error(24, f"BREAK_GLASS_ACCOUNTS and {path} require each other.", in_settings(line))
    elif accounts:
        text = "Local accounts may sign in by password, without the provider"

        if any(source.is_offered() for source in access_overrides):
            text += "."
        else:
            text += ". Without emergency access, they see no record while it is unavailable."

        hint = "To end that, remove their backend, too. " + in_settings(
            'del PHI_OIDC["BREAK_GLASS_ACCOUNTS"]'
        )
        yield warning(23, text, hint)


@register_check(Tags.database, deploy=True)
def check_local_accounts(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W061: a local account can't sign in."""
    names = conf.break_glass_accounts()
    model = get_user_model()
    if not names or "default" not in (databases or ()):
        return
    try:
        rows = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names})
        accounts: dict[str, Any] = {account.get_username(): account for account in rows}
        for name in names:
            account = accounts.get(name)
            if account is None or not account.is_active or not account.has_usable_password():
                if account is None:
                    command = "createsuperuser --username"
                else:
                    command = "changepassword"

                hint = f"manage.py {command} {name}"
                yield warning(
                    61,
                    f"The local account {name!r} does not exist, is inactive or has no password.",
                    hint,
                )
    except DatabaseError as fault:
        yield warning(
            61,
            f"The local accounts can't be checked: {type(fault).__name__}.",
            DEFAULT_CONNECT_HINT,
        )
