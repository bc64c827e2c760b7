"""The path of the redirect URI in the portal's URLs."""

from django.core.management.base import CommandError
from django.urls import NoReverseMatch, reverse

from ... import conf


def build_callback_path(provider: str) -> str:
    """Return the path of the redirect URI, which names the provider unless it is the only one.
    Raises: CommandError.
    """
    if len(conf.providers()) == 1:
        kwargs = None
    else:
        kwargs = {"provider": provider}
    try:
        return reverse("oidc_authentication_callback", kwargs=kwargs)
    except NoReverseMatch as error:
        line = 'path("oidc/", include("django_phi_oidc.urls"))'
        raise CommandError(
            f"The URLs of the portal have no callback: add {line} to urlpatterns."
        ) from error
