"""The SCIM groups of an account, and the roles that `ROLES` maps them to."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from ...audit.events import Origin
from ..role_mapping import conf as role_mapping_conf
from . import conf as scim_conf
from .declaration import SCIM_GROUPS_CLAIM
from .group_role_sync import sync_roles_of_many
from .models import SCIMMembership


def list_group_names(user_pk: Any, *, provider: str) -> list[str]:
    """Return the names of the groups in which clients of the provider have put the account, by one
    SELECT.
    """
    rows = _list_memberships(provider).filter(member__user=user_pk)
    return list(rows.order_by("group__display_name").values_list("group__display_name", flat=True))


def _list_memberships(provider: str) -> QuerySet[SCIMMembership]:
    return SCIMMembership.objects.filter(member__provider=provider, member__deleted_at=None)


class GroupClaimSource:
    """The groups of a person, for the rules in ROLES at a sign-in."""

    claim = SCIM_GROUPS_CLAIM
    provider_option = "scim"

    def is_declared(self, provider: str) -> bool:
        return provider in scim_conf.scim()

    def get_values(self, user_pk: Any, *, provider: str) -> list[str]:
        return list_group_names(user_pk, provider=provider)


group_claim_source = GroupClaimSource()


def sync_group_roles(
    user_pks: Collection[Any], *, provider: str, origin: Origin, now: datetime
) -> None:
    """Apply the rules about groups to these accounts, in the caller's transaction, with the events.

    Rules about other claims are left to the next sign-in. Requires: as of `sync_roles_of_many`.
    """
    rules = []
    for rule in role_mapping_conf.roles().get(provider, ()):
        if rule.claim == SCIM_GROUPS_CLAIM:
            rules.append(rule)
    if rules and user_pks:
        names: dict[Any, list[str]] = {}
        rows = _list_memberships(provider).filter(member__user__in=user_pks)
        for user_pk, name in rows.values_list("member__user", "group__display_name"):
            names.setdefault(user_pk, []).append(name)
        claims = {user_pk: {SCIM_GROUPS_CLAIM: names.get(user_pk, [])} for user_pk in user_pks}
        sync_roles_of_many(claims, rules=rules, provider=provider, origin=origin, now=now)
