"""System checks of the option `scim` of a provider."""

from importlib.util import find_spec
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import Tags

from ... import conf
from ..._internal.check_messages import Messages, error, register_check, warning
from ..common.client_authentication import client_authenticators
from ..common.option_checks import check_client_cert_header
from ..role_mapping import conf as role_mapping_conf
from . import conf as scim_conf
from .declaration import list_mixed_roles


@register_check(Tags.security)
def check_scim(**kwargs: Any) -> Messages:
    """E150: a missing package; E151: no `is_active`, or access tokens that no app verifies, or that
    are of two providers and cannot be distinguished; E107, W107: `allow_client_cert_header`;
    W150: roles of a group and of a claim.
    """
    declared = scim_conf.scim()
    if not declared:
        return
    if find_spec("scim2_models") is None:
        hint = 'pip install "django-phi-oidc[scim]"'
        yield error(
            150, "The option scim requires the package scim2-models, which is not installed.", hint
        )
    if "is_active" not in {field.name for field in get_user_model()._meta.get_fields()}:
        yield error(
            151,
            "The option scim requires the field 'is_active', which the user model does not have.",
        )
    accepted = {}
    for name, declaration in declared.items():
        if declaration.access_tokens:
            accepted[name] = declaration.access_tokens
    if accepted and not client_authenticators:
        yield error(
            151,
            "The option scim: access_tokens require django_phi_oidc.contrib.apis, which is not in "
            "INSTALLED_APPS.",
        )
    for name, tokens in accepted.items():
        if tokens.allow_client_cert_header:
            yield from check_client_cert_header(f'PROVIDERS["{name}"]["scim"]["access_tokens"]')
    by_target: dict[tuple[str, str], list[str]] = {}
    for name, tokens in accepted.items():
        by_target.setdefault((conf.providers()[name].issuer, tokens.audience), []).append(name)
    for same in by_target.values():
        if len(same) > 1:
            names = " and ".join(map(repr, same))
            yield error(
                151,
                f"The option scim: {names} accept access tokens of the same issuer and audience.",
            )
    introspecting = [name for name, tokens in accepted.items() if tokens.method != "jwt"]
    if len(introspecting) > 1:
        names = " and ".join(map(repr, introspecting))
        yield error(
            151,
            f"The option scim: {names} would see tokens of each "
            "other; only one can use introspection.",
        )
    hint = "A change of the groups removes a role that a claim has granted, until the next sign-in."
    for provider, role in list_mixed_roles(role_mapping_conf.roles(), declared):
        yield warning(
            150,
            f"PHI_OIDC['ROLES'][{provider!r}]: {role!r} depends on scim_groups and on a claim.",
            hint,
        )
