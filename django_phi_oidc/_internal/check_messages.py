"""Registration and messages of the checks. docs/reference/checks.md explains each id."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

Messages = Iterator[checks.CheckMessage]
DEBUG_AT_START = settings.DEBUG
"""DEBUG as the project sets it, because ready() imports this module: Django's test runner turns it
off before the checks.
"""
REGISTERED_CHECKS: defaultdict[tuple[str, bool], list[Callable[..., list[checks.CheckMessage]]]] = (
    defaultdict(list)
)
"""The checks by tag and `deploy`, of the modules that are imported."""


def register_check(
    tag: str, *, deploy: bool = False
) -> Callable[[Callable[..., Messages]], Callable[..., Any]]:
    """Register a generator of messages. A wrong option ends the check without a message, because
    E002 reports it.
    """

    def decorate(generate: Callable[..., Messages]) -> Callable[..., Any]:
        @wraps(generate)
        def check(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
            messages: list[checks.CheckMessage] = []
            with suppress(ImproperlyConfigured):
                messages.extend(generate(**kwargs))
            return messages

        REGISTERED_CHECKS[tag, deploy].append(check)
        return check

    return decorate


def in_settings(*lines: str) -> str:
    """Return a hint with lines that can be pasted at the end of the settings."""
    if len(lines) == 1:
        return f"In your settings: {lines[0]}"
    return "\n\t\t".join(["In your settings:", *lines])


def error(number: int, message: str, hint: str | None = None) -> checks.Error:
    """Return E<number>: something is wrong or unsafe."""
    return checks.Error(message, hint=hint, id=f"django_phi_oidc.E{number:03}")


def warning(number: int, message: str, hint: str | None = None) -> checks.Warning:
    """Return W<number>: a setting weakens a rule."""
    return checks.Warning(message, hint=hint, id=f"django_phi_oidc.W{number:03}")


DEFAULT_CONNECT_HINT = "The reason: manage.py dbshell"
SET_WITNESS_FILE = in_settings(
    'PHI_OIDC["AUDIT"]["witness_file"] = "/mnt/another-machine/phi-oidc-witness"'
)
"""The hint of W021 and W065."""
