"""System checks, a module for each part of the settings.

The modules are imported when Django runs the checks. Web processes never do, and so import neither
Celery nor other packages that only a check needs.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import product
from pkgutil import iter_modules
from typing import Any

from django.core import checks

from .._internal.app_configs import FeatureConfig, list_installed_features
from .._internal.check_messages import REGISTERED_CHECKS


def register_checks() -> None:
    """Register a function with Django for each combination of tag and `deploy`, which runs the
    checks of that kind.
    """
    for tag, deploy in product(
        (checks.Tags.database, checks.Tags.security, checks.Tags.urls), (False, True)
    ):
        checks.register(_build_runner(tag, deploy), tag, deploy=deploy)


# Cached, because ready() runs again when a test changes INSTALLED_APPS: Django ignores a function
# that it has.
@cache
def _build_runner(tag: str, deploy: bool) -> Callable[..., list[checks.CheckMessage]]:
    def run_imported_checks(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
        for config in list_installed_features():
            _import_checks(config)
        imported_checks = []
        for check in REGISTERED_CHECKS[tag, deploy]:
            for message in check(app_configs, **kwargs):
                imported_checks.append(message)
        return imported_checks

    return run_imported_checks


def _import_checks(config: FeatureConfig) -> None:
    """Import the module `checks` of an app, or the modules of its package of that name."""
    module = config.find_module("checks")
    if module is not None and hasattr(module, "__path__"):
        for part in iter_modules(module.__path__, f"{module.__name__}."):
            import_module(part.name)
