"""The options of the setting `PHI_OIDC`, of the core and of all installed apps.

Each option is parsed at its first use, and again after `setting_changed`. The accessors of an app
are in its own `conf.py`. Everything here raises SettingInvalid if an option is wrong. The message
lists all mistakes of the setting, by the names of the options and without their values. A mistake
in another option does not matter.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from .config import sections
from .errors import Code, DeclarationInvalid

T = TypeVar("T")


class SettingInvalid(ImproperlyConfigured):
    """An option is wrong. The message names it, and all other mistakes of the setting, without
    values.
    """

    code = Code.DECLARATION_INVALID
    is_provider_fault = False


@lru_cache(maxsize=64)
def read_option(option: str, member: str = "") -> Any:
    """Return the parsed option of PHI_OIDC, or one member of a group of options such as KEYS."""
    try:
        return sections.parse_one(get_declared(), option, member)
    except DeclarationInvalid as error:
        raise SettingInvalid("\n".join([*list_unknown_options(), *list_mistakes()])) from error


def cache_option(read: Callable[[], T]) -> Callable[[], T]:
    """Decorate a function that derives a value from options: call it once for each change of
    PHI_OIDC.
    """
    cached = lru_cache(maxsize=1)(read)
    _clear_functions.append(cached.cache_clear)
    return cached


def list_unknown_options() -> list[str]:
    """Return a message for each top-level option that does not exist."""
    unknown_options = []
    for message in sections.list_unknown(get_declared()):
        unknown_options.append(f"PHI_OIDC: {message}")
    return unknown_options


def list_mistakes() -> list[str]:
    """Return a message for each mistake in the known options, without values."""
    mistakes = []
    for mistake in sections.list_mistakes(get_declared()):
        mistakes.append(re.sub(r"^\w+", r"PHI_OIDC['\g<0>']", mistake))
    return mistakes


def import_function(option: str, path: str) -> Callable[[Any], Any]:
    """Return the project's function that the option names."""
    try:
        function = import_string(path)
    except (ImportError, AttributeError) as error:
        raise SettingInvalid(f"PHI_OIDC[{option!r}] can't be imported: {error}") from error
    if not callable(function):
        raise SettingInvalid(f"PHI_OIDC[{option!r}] must be the dotted path of a function.")
    return function  # type: ignore[no-any-return]  # the project's own


def get_declared() -> Mapping[str, Any]:
    """Return the setting as declared."""
    declared = getattr(settings, "PHI_OIDC", {})
    if not isinstance(declared, Mapping):
        raise SettingInvalid("PHI_OIDC must be a dictionary.")
    return declared


_clear_functions: list[Callable[[], None]] = [read_option.cache_clear]


@receiver(setting_changed, dispatch_uid="django_phi_oidc.options")
def _clear_caches(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        for clear in _clear_functions:
            clear()
