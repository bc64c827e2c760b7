"""System checks of what is left of mozilla-django-oidc and django-allauth in a project."""

from collections.abc import Iterator
from typing import Any

from django.core.checks import Tags

from ... import conf
from ..._internal.check_messages import Messages, error, in_settings, register_check, warning
from ...checks._urls import iterate_url_patterns
from . import allauth, mozilla
from .overridden_hooks import is_of_package

SOCIAL_PROVIDERS = f"{allauth.PACKAGE}.socialaccount.providers"


@register_check(Tags.security)
def check_mozilla(**kwargs: Any) -> Messages:
    """E086 to E088, W086: middleware, backends, views and settings of mozilla-django-oidc."""
    for path in mozilla.list_middleware():
        text = (
            f"{path} redirects the pages of each session to the "
            "provider, and the sign-in that follows is refused."
        )
        yield error(86, text, in_settings(f'MIDDLEWARE.remove("{path}")'))
    for path in mozilla.list_backends():
        text = (
            f"{path} is a backend of mozilla-django-oidc: it does not derive from "
            f"{mozilla.OWN_BACKEND}."
        )
        hint = f"Or derive the class from {mozilla.OWN_BACKEND}. "
        yield error(87, text, hint + in_settings(f'AUTHENTICATION_BACKENDS.remove("{path}")'))
    for path in mozilla.list_api_authentication():
        text = (
            f"{path} authenticates requests to the API by "
            "mozilla-django-oidc, which this package does not support."
        )
        hint = (
            "Use django_phi_oidc.contrib.rest_framework.authentication.BearerAuthentication, and "
            "declare API."
        )
        yield error(88, text, hint)
    if names := sorted(_list_view_names(mozilla.PACKAGE)):
        text = f"The URLs contain views of mozilla-django-oidc: {', '.join(names)}."
        yield error(
            88,
            text,
            'In your URLs, instead of them: path("oidc/", include("django_phi_oidc.urls"))',
        )
    if names := mozilla.list_replaced_settings():
        if conf.providers():
            text = "have no effect: PHI_OIDC replaces them"
            hint = "Delete them."
        else:
            text = "are not taken over yet"
            hint = "The equivalent: manage.py phi_oidc migrate-from mozilla"
        yield warning(
            86, f"These settings of mozilla-django-oidc {text}: {', '.join(names)}.", hint
        )


@register_check(Tags.security)
def check_allauth(**kwargs: Any) -> Messages:
    """W087: users can also sign in by django-allauth, without this package's rules. Its account
    pages are allowed.
    """
    if not conf.providers():
        return
    text = (
        "without an OIDC session: no token is revoked, no claim "
        "is revealed, and no event is recorded"
    )
    for path in allauth.list_backends():
        hint = in_settings(f'AUTHENTICATION_BACKENDS.remove("{path}")')
        yield warning(87, f"{path} permits sign-in by django-allauth, {text}.", hint)
    if names := sorted(_list_view_names(SOCIAL_PROVIDERS)):
        hint = "Delete the providers from INSTALLED_APPS, or include('allauth.urls') from the URLs."
        yield warning(
            87, f"The URLs permit sign-in by django-allauth, {text}: {', '.join(names)}.", hint
        )


def _list_view_names(package: str) -> set[str]:
    """Return the names of the URL patterns whose views the package defines, or classes derived from
    its own.
    """
    view_names = set()
    for pattern in _iterate_patterns_of(package):
        view_names.add(str(pattern.name or pattern.pattern))
    return view_names


def _iterate_patterns_of(package: str) -> Iterator[Any]:
    for pattern in iterate_url_patterns():
        view = pattern.callback
        classes = getattr(view, "view_class", type(None)).__mro__
        if is_of_package(view, package) or any(is_of_package(cls, package) for cls in classes):
            yield pattern
