"""System checks of the order of MIDDLEWARE."""

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import Tags
from django.middleware.gzip import GZipMiddleware
from django.utils.module_loading import import_string

from .._internal.check_messages import Messages, error, in_settings, register_check, warning

REVOCATION_MIDDLEWARE = "django_phi_oidc.middleware.RevocationMiddleware"
LEAKAGE_GUARD_MIDDLEWARE = "django_phi_oidc.middleware.LeakageGuardMiddleware"


@register_check(Tags.security)
def check_middleware(**kwargs: Any) -> Messages:
    """E010: RevocationMiddleware is missing, or comes before the session and the user are known."""
    if REVOCATION_MIDDLEWARE not in settings.MIDDLEWARE:
        text = (
            f"{REVOCATION_MIDDLEWARE} is not in MIDDLEWARE: the tokens "
            "of a lost session would not be revoked."
        )
        yield error(10, text, in_settings(f'MIDDLEWARE = [*MIDDLEWARE, "{REVOCATION_MIDDLEWARE}"]'))
        return
    before, _ = _split_classes(REVOCATION_MIDDLEWARE)
    for required in (SessionMiddleware, AuthenticationMiddleware):
        if not any(issubclass(middleware, required) for middleware in before):
            own = []
            for path in settings.MIDDLEWARE:
                if _is_subclass(path, required):
                    own.append(path)
            first = own or [f"{required.__module__}.{required.__name__}"]
            names = ", ".join(f'"{path}"' for path in (*first, REVOCATION_MIDDLEWARE))
            yield error(
                10,
                f"{REVOCATION_MIDDLEWARE} must come after {required.__name__}.",
                f"In this order: {names}",
            )


@register_check(Tags.security)
def check_leakage_guard(**kwargs: Any) -> Messages:
    """W030: the leakage guard, if it is used, does not see cookies, or sees compressed pages."""
    if LEAKAGE_GUARD_MIDDLEWARE not in settings.MIDDLEWARE:
        return
    before, after = _split_classes(LEAKAGE_GUARD_MIDDLEWARE)
    misplaced: list[type] = [
        middleware for middleware in before if issubclass(middleware, SessionMiddleware)
    ]
    misplaced += [middleware for middleware in after if issubclass(middleware, GZipMiddleware)]
    hint = (
        "GZipMiddleware comes first, then the guard, then all "
        "middleware that writes cookies and pages."
    )
    for middleware in misplaced:
        yield warning(
            30, f"{LEAKAGE_GUARD_MIDDLEWARE} is on the wrong side of {middleware.__name__}.", hint
        )


def _split_classes(path: str) -> tuple[list[type], list[type]]:
    """Return the middleware classes before and after path. Function-based middleware is left
    out.
    """
    position = list(settings.MIDDLEWARE).index(path)
    before = settings.MIDDLEWARE[:position]
    after = settings.MIDDLEWARE[position + 1 :]
    classes = ([import_string(name) for name in names] for names in (before, after))
    before_classes, after_classes = (
        [cls for cls in group if isinstance(cls, type)] for group in classes
    )
    return before_classes, after_classes


def _is_subclass(path: str, base: type) -> bool:
    middleware = import_string(path)
    return isinstance(middleware, type) and issubclass(middleware, base)
