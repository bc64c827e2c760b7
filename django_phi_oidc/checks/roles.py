"""System checks of `ROLES`; those of all else are in checks.py, where docs/reference/checks.md leads, too."""

from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from .. import conf
from ..claims.minimization import PROTOCOL_CLAIMS
from ..config.roles import get_managed_roles, list_role_rule_faults, list_shared_roles


def _error(number: int, message: str) -> checks.Error:
    return checks.Error(f"PHI_OIDC: {message}", id=f"django_phi_oidc.E{number:03}")


def _warning(number: int, message: str) -> checks.Warning:
    return checks.Warning(f"PHI_OIDC['ROLES']: {message}", id=f"django_phi_oidc.W{number:03}")


@register(Tags.security)
def check_role_rules(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E025: rules that can't work; W024: providers of which each takes what the other gives."""
    try:
        rules, providers, claims = conf.roles(), conf.providers(), conf.claims()
    except ImproperlyConfigured:
        # E002 tells of it.
        return []
    wrong = list(list_role_rule_faults(rules, providers=providers, claims=claims, protocol_claims=PROTOCOL_CLAIMS))
    roles = {role for each in rules.values() for role in get_managed_roles(each)}
    needed = {"groups" if role.kind == "group" else role.name for role in roles}
    if any(rule.flags for each in rules.values() for rule in each):
        # Who else could administer is asked of those who are active.
        needed.add("is_active")
    lacking = sorted(needed - {each.name for each in get_user_model()._meta.get_fields()})
    wrong += [f"ROLES needs the field {name!r}, which the user model does not have." for name in lacking]
    return [_error(25, each) for each in wrong] + [
        _warning(24, f"{' and '.join(map(repr, names))} manage {role.name!r}: one sign-in takes what another gave.")
        for role, names in list_shared_roles(rules)
    ]


@register(Tags.database)
def check_role_groups(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W025: a rule names a group that is not there."""
    if "default" not in (databases or ()):
        return []
    try:
        named = {
            role.name for rules in conf.roles().values() for role in get_managed_roles(rules) if role.kind == "group"
        }
        if not named or Group._meta.db_table not in connections["default"].introspection.table_names():
            return []
        there = Group.objects.using("default").filter(name__in=named).values_list("name", flat=True)
        missing = sorted(named - set(there))
    except (DatabaseError, ImproperlyConfigured):
        return []
    return [_warning(25, f"there is no group {name!r}, so nobody gets it.") for name in missing]
