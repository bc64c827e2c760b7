"""System checks of `SCIM` and `THIRD_PARTY_LOGIN`."""

from importlib.util import find_spec
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import Tags

from .. import conf
from ..config.scim import list_mixed_roles, list_scim_faults
from ._messages import Messages, error, register_check, warning


@register_check(Tags.security)
def check_third_party_login(**kwargs: Any) -> Messages:
    """E152: a provider that is not declared."""
    for name in conf.third_party_login():
        if name not in conf.providers():
            hint = f"Its providers are: {', '.join(conf.providers())}."
            yield error(152, f"PHI_OIDC['THIRD_PARTY_LOGIN']: there is no provider {name!r}.", hint)


@register_check(Tags.security)
def check_scim(**kwargs: Any) -> Messages:
    """E150: a missing package; E151: useless declarations; W150: roles of a group and of a claim."""
    declared = conf.scim()
    if not declared:
        return
    if find_spec("scim2_models") is None:
        hint = 'pip install "django-phi-oidc[scim]"'
        yield error(150, "PHI_OIDC['SCIM'] requires the package scim2-models, which is not installed.", hint)
    faults = list(list_scim_faults(declared, providers=conf.providers()))
    if "is_active" not in {field.name for field in get_user_model()._meta.get_fields()}:
        faults.append("SCIM needs the field 'is_active', which the user model does not have.")
    yield from (error(151, f"PHI_OIDC: {fault}") for fault in faults)
    hint = "A change of the groups removes a role that a claim has granted, until the next sign-in."
    for provider, role in list_mixed_roles(conf.roles(), declared):
        yield warning(150, f"PHI_OIDC['ROLES'][{provider!r}]: {role!r} depends on scim_groups and on a claim.", hint)
