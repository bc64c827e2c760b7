"""System checks of `ROLES`."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.checks import Tags
from django.db import DatabaseError, connections

from ... import conf
from ..._internal.check_messages import Messages, error, register_check, warning
from ...claims.minimization import PROTOCOL_CLAIMS
from . import conf as role_mapping_conf
from .claim_sources import claim_sources
from .declaration import (
    SuppliedClaim,
    get_managed_roles,
    list_role_rule_faults,
    list_shared_roles,
)


@register_check(Tags.security)
def check_role_rules(**kwargs: Any) -> Messages:
    """E025: rules that can't work; W024: providers that manage the same role."""
    rules = role_mapping_conf.roles()
    providers = conf.providers()
    supplied_claims = {}
    for source in claim_sources:
        supplied_claims[source.claim] = SuppliedClaim(
            provider_option=source.provider_option,
            providers=[name for name in providers if source.is_declared(name)],
        )
    faults = list(
        list_role_rule_faults(
            rules,
            providers=providers,
            claims=conf.claims(),
            protocol_claims=PROTOCOL_CLAIMS,
            supplied_claims=supplied_claims,
        )
    )
    roles = {role for own in rules.values() for role in get_managed_roles(own)}
    required = {"groups" if role.kind == "group" else role.name for role in roles}
    if any(rule.flags for own in rules.values() for rule in own):
        # The search for the last administrator considers active users only.
        required.add("is_active")
    missing = sorted(required - {field.name for field in get_user_model()._meta.get_fields()})
    for name in missing:
        faults.append(f"ROLES needs the field {name!r}, which the user model does not have.")
    yield from (error(25, f"PHI_OIDC: {fault}") for fault in faults)
    hint = "A sign-in at one provider removes the role that another provider granted."
    for role, names in list_shared_roles(rules):
        yield warning(
            24,
            f"PHI_OIDC['ROLES']: {' and '.join(map(repr, names))} both manage {role.name!r}.",
            hint,
        )


@register_check(Tags.database)
def check_role_groups(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W025: a rule names a group that does not exist."""
    if "default" not in (databases or ()):
        return
    with suppress(DatabaseError):
        roles = set()
        for rules in role_mapping_conf.roles().values():
            for role in get_managed_roles(rules):
                roles.add(role)
        names = set()
        for role in roles:
            if role.kind == "group":
                names.add(role.name)
        if (
            not names
            or Group._meta.db_table not in connections["default"].introspection.table_names()
        ):
            return
        existing = (
            Group.objects.using("default").filter(name__in=names).values_list("name", flat=True)
        )
        for name in sorted(names - set(existing)):
            code = (
                f"from django.contrib.auth.models import Group; Group.objects.create(name={name!r})"
            )
            yield warning(
                25,
                f"PHI_OIDC['ROLES']: the group {name!r} does not exist.",
                f'manage.py shell -c "{code}"',
            )
