"""The SCIM groups of an account, and the roles that `ROLES` maps them to."""

from datetime import datetime
from typing import Any

from .. import conf
from ..access.role_sync import sync_roles
from ..audit.events import Origin
from ..config.roles import SCIM_GROUPS_CLAIM
from .models import SCIMMembership


def list_group_names(user_pk: Any, *, provider: str) -> list[str]:
    """Return the names of the groups in which clients of the provider have put the account, by one SELECT."""
    rows = SCIMMembership.objects.filter(member__user=user_pk, member__provider=provider, member__deleted_at=None)
    return list(rows.order_by("group__display_name").values_list("group__display_name", flat=True))


def get_group_claims(user_pk: Any, *, provider: str) -> dict[str, list[str]]:
    """Return what rules see of the groups at a sign-in; empty, without a SELECT, if no rule of the provider does."""
    rules = conf.roles().get(provider, ())
    if not any(rule.claim == SCIM_GROUPS_CLAIM for rule in rules):
        return {}
    return {SCIM_GROUPS_CLAIM: list_group_names(user_pk, provider=provider)}


def sync_group_roles(user: Any, *, provider: str, origin: Origin, now: datetime) -> None:
    """Apply the rules about groups to the account, in the caller's transaction, with the events.

    Rules about other claims are left to the next sign-in. Requires: as of `sync_roles`.
    """
    rules = [rule for rule in conf.roles().get(provider, ()) if rule.claim == SCIM_GROUPS_CLAIM]
    if rules:
        claims = {SCIM_GROUPS_CLAIM: list_group_names(user.pk, provider=provider)}
        sync_roles(user, rules=rules, claims=claims, provider=provider, subject="", origin=origin, now=now)
