"""System checks of the assurance that sign-ins need: none at all, none in the admin, or an
ambiguous one.
"""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.checks import Tags

from .. import conf
from .._internal.check_messages import Messages, error, in_settings, register_check, warning
from ..config.admin_assurance import AdminAssuranceDeclaration
from ..extensions import access_overrides
from ._urls import iterate_url_patterns


@register_check(Tags.security)
def check_admin_sites(**kwargs: Any) -> Messages:
    """E055: an admin site that does not enforce ADMIN_ASSURANCE."""
    if conf.admin_assurance() == AdminAssuranceDeclaration() or not getattr(
        settings, "ROOT_URLCONF", None
    ):
        return
    for pattern in iterate_url_patterns():
        site = getattr(pattern.callback, "admin_site", None)
        if (
            isinstance(site, AdminSite)
            and pattern.name == "index"
            and "admin_view" not in vars(site)
        ):
            hint = (
                "Before the URLs of the site: django_phi_oidc.login.admin_site.use_oidc_login(site)"
            )
            yield error(
                55,
                f"PHI_OIDC['ADMIN_ASSURANCE'] does not apply to the admin site {site.name!r}.",
                hint,
            )


@register_check(Tags.security)
def check_trust_marks(**kwargs: Any) -> Messages:
    """E119: providers with different trust marks. Pages that require a vector do not say whose.
    Spec: RFC 8485 5.
    """
    names = []
    for name, provider in conf.providers().items():
        if provider.vtm:
            names.append(name)
    if len({conf.providers()[name].vtm for name in names}) > 1:
        text = (
            f"The providers {', '.join(names)} have different trust "
            "marks (vtm): a vector may have two meanings."
        )
        yield error(
            119,
            text,
            "Require vectors of one of them, and acr_values or amr_required of the others.",
        )


@register_check(Tags.security, deploy=True)
def check_assurance(**kwargs: Any) -> Messages:
    """W057: no sign-in needs a level of assurance; W055: none in the admin. Guards of views are NOT
    checked.
    """
    providers = conf.providers().values()
    levels = []
    for provider in providers:
        levels.append(provider.requires_assurance or provider.provider_requires_mfa)
    override_level = any(source.requires_assurance() for source in access_overrides)
    admin_assurance = conf.admin_assurance()
    admin_level = admin_assurance.acr or admin_assurance.vot
    line = in_settings('PHI_OIDC["ADMIN_ASSURANCE"] = {"acr": ["…"]}')
    if not any(levels) and not admin_level and not override_level:
        text = (
            "No provider declares acr_values, acr_accepted, vtr or amr_required, and neither "
            "ADMIN_ASSURANCE nor EMERGENCY an acr: no sign-in needs a second factor here."
        )
        name = next(iter(conf.providers()), "default")
        rule = in_settings(f'PHI_OIDC["PROVIDERS"]["{name}"]["provider_requires_mfa"] = True')
        hint = f"For the admin at least, the acr of a sign-in with several factors. {line}"
        yield warning(
            57,
            text,
            f"{hint}\n\t\tOr, if the provider requires several factors of each user. {rule}",
        )
    elif apps.is_installed("django.contrib.admin") and not admin_level and not all(levels):
        yield warning(55, "The admin requires no level of assurance.", line)
