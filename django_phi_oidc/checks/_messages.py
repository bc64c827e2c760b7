"""Messages of the checks. docs/reference/checks.md explains each id."""

from django.core import checks


def error(number: int, message: str, hint: str | None = None) -> checks.Error:
    """Return E<number>: something is wrong or unsafe."""
    return checks.Error(message, hint=hint, id=f"django_phi_oidc.E{number:03}")


def warning(number: int, message: str, hint: str | None = None) -> checks.Warning:
    """Return W<number>: a setting weakens a rule."""
    return checks.Warning(message, hint=hint, id=f"django_phi_oidc.W{number:03}")
