"""System checks of the assurance that sign-ins need: none at all, or none in the admin."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.checks import Tags

from .. import conf
from ..config.admin_assurance import AdminAssuranceDeclaration
from ._messages import Messages, error, register_check, warning
from ._urls import iterate_url_patterns


@register_check(Tags.security)
def check_admin_sites(**kwargs: Any) -> Messages:
    """E055: an admin site that does not enforce ADMIN_ASSURANCE."""
    if conf.admin_assurance() == AdminAssuranceDeclaration() or not getattr(settings, "ROOT_URLCONF", None):
        return
    for pattern in iterate_url_patterns():
        site = getattr(pattern.callback, "admin_site", None)
        if isinstance(site, AdminSite) and pattern.name == "index" and "admin_view" not in vars(site):
            hint = "Call django_phi_oidc.login.admin_site.use_oidc_login(site)."
            yield error(55, f"PHI_OIDC['ADMIN_ASSURANCE'] does not apply to the admin site {site.name!r}.", hint)


@register_check(Tags.security, deploy=True)
def check_assurance(**kwargs: Any) -> Messages:
    """W057: no sign-in needs a level of assurance; W055: none in the admin. Guards of views are NOT checked."""
    levels = [provider.acr_values for provider in conf.providers().values()]
    emergency, admin_level = conf.emergency(), conf.admin_assurance().acr
    if not any(levels) and not admin_level and not (emergency and emergency.acr):
        text = "No provider, ADMIN_ASSURANCE or EMERGENCY declares an acr: no sign-in needs a second factor here."
        yield warning(57, text, "Declare the acr of a sign-in with several factors, at least in ADMIN_ASSURANCE.")
    elif apps.is_installed("django.contrib.admin") and not admin_level and not all(levels):
        yield warning(55, "The admin requires no level of assurance.", "PHI_OIDC['ADMIN_ASSURANCE'] = {'acr': […]}")
