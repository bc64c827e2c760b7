"""The beat entries for Celery. A message only starts a task; the due times are in the tables."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from ._internal.app_configs import create_features


def beat_schedule(
    installed_apps: Iterable[str] | None = None, *, interval_seconds: float = 10.0
) -> dict[str, dict[str, Any]]:
    """Return entries for `app.conf.beat_schedule`: the periodic tasks of the installed apps.

    installed_apps: INSTALLED_APPS, for a call within the settings themselves; by default those of
    the settings. interval_seconds: between two runs of the urgent tasks.
    """
    if installed_apps is None:
        installed_apps = settings.INSTALLED_APPS
    entries = {}
    for config in create_features(installed_apps):
        for name, multiple in config.beat.items():
            pause = multiple * interval_seconds
            # A message that no worker took before the next one is due expires: the next run finds
            # the same rows.
            entries[name] = {"task": name, "schedule": pause, "options": {"expires": pause}}
    return entries
