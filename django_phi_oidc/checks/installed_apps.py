"""Checks of INSTALLED_APPS: apps that are missing, and tables of apps that were removed."""

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import Tags
from django.db import DEFAULT_DB_ALIAS, DatabaseError

from .._internal.app_configs import list_installed_features
from .._internal.app_tables import list_left_tables
from .._internal.check_messages import Messages, error, in_settings, register_check

_APPS_PREFIX = "django_phi_oidc.contrib."


@register_check(Tags.security)
def check_required_apps(**kwargs: Any) -> Messages:
    """E160: an app is installed without another one that it needs."""
    for config in list_installed_features():
        for name in config.requires:
            if not apps.is_installed(name):
                hint = in_settings(f'INSTALLED_APPS += ["{name}"]')
                yield error(160, f"{config.name} needs {name}, which is not installed.", hint)


@register_check(Tags.security)
def check_classes_of_apps(**kwargs: Any) -> Messages:
    """E162: a setting names a class of an app that is not installed."""
    for setting in ("AUTHENTICATION_BACKENDS", "MIDDLEWARE"):
        for path in getattr(settings, setting):
            if not path.startswith(_APPS_PREFIX):
                continue
            app_name = _APPS_PREFIX + path.removeprefix(_APPS_PREFIX).partition(".")[0]
            if not apps.is_installed(app_name):
                hint = in_settings(f'INSTALLED_APPS += ["{app_name}"]')
                yield error(162, f"{setting} names {path}, whose app is not installed.", hint)


@register_check(Tags.database)
def check_left_tables(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """E161: an app was removed from INSTALLED_APPS while its tables have rows."""
    if DEFAULT_DB_ALIAS not in (databases or ()):
        return
    try:
        tables = list_left_tables()
    except DatabaseError:
        # E017 reports it.
        return
    for table in tables:
        yield error(
            161,
            f"The table {table} has rows, and its app is not in INSTALLED_APPS.",
            "Install the app again, or delete the table. phi_oidc apps lists the apps.",
        )
