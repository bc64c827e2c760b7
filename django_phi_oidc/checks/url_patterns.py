"""System check of the URLs: this app's URLs are missing."""

from typing import Any

from django.conf import settings
from django.core.checks import Tags
from django.urls import NoReverseMatch, reverse

from .._internal.check_messages import Messages, error, register_check
from ._urls import iterate_url_patterns

_CALLBACK_NAME = "oidc_authentication_callback"


@register_check(Tags.urls)
def check_url_patterns(**kwargs: Any) -> Messages:
    """E070: the URLs of this app are not included, or only in a namespace, where they are not
    found.
    """
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    try:
        reverse(_CALLBACK_NAME)
    except NoReverseMatch:
        is_included = any(pattern.name == _CALLBACK_NAME for pattern in iterate_url_patterns())
        if is_included:
            text = "are included in a namespace, where they are not found"
        else:
            text = "are not included"

        hint = (
            f'In {settings.ROOT_URLCONF}: urlpatterns += [path("oidc/", '
            'include("django_phi_oidc.urls"))]'
        )
        yield error(70, f"The URLs of django_phi_oidc {text}: every sign-in would fail.", hint)
