"""Groups of SCIM clients: create, change and delete them; members get the roles of the group, with
its events.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from ..._internal import randomness
from ...audit.events import Action
from ...audit.outbox import batch_delivery, enqueue_many
from ...audit.request_context import use_origin
from ...claims.retention import lock_subjects_of_users
from .memberships import sync_group_roles
from .models import SCIMGroup, SCIMMembership, SCIMUser
from .scim_users import (
    ClientRequest,
    SCIMRefused,
    build_comparison_key,
    list_users,
    parse_id,
    validate_text,
)


class MemberUnknown(SCIMRefused):
    """A member is not a user of the provider: one of another provider is refused as one that does
    not exist.

    ids: those that are well-formed.
    """

    def __init__(self, ids: Collection[uuid.UUID]) -> None:
        super().__init__(400, "invalidValue", "A member is not the id of a User.")
        self.ids = ids


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChange:
    """A change of the members of a group, by ids as the client sends them. Of two changes of one,
    the last counts.
    """

    keeps_others: bool = True
    """False: members that are not added are removed."""
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()

    def add(self, ids: Iterable[str]) -> "MemberChange":
        ids = frozenset(ids)
        return replace(self, added=self.added | ids, removed=self.removed - ids)

    def remove(self, ids: Iterable[str]) -> "MemberChange":
        ids = frozenset(ids)
        return replace(self, added=self.added - ids, removed=self.removed | ids)

    def replace(self, ids: Iterable[str]) -> "MemberChange":
        return MemberChange(keeps_others=False, added=frozenset(ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAttributes:
    """What is kept of a Group resource."""

    display_name: str
    external_id: str = ""
    members: MemberChange = MemberChange()


def list_groups(provider: str) -> QuerySet[SCIMGroup]:
    """Return the groups that clients of the provider see."""
    return SCIMGroup.objects.filter(provider=provider)


def create_group(attributes: GroupAttributes, request: ClientRequest) -> SCIMGroup:
    """Create a group with its members, and give them its roles.

    Raises: SCIMRefused: the name is taken, or a member is no user of this provider; KeyMissing,
    DatabaseError.
    """
    _validate(attributes)
    row = SCIMGroup(
        id=randomness.uuid4(),
        provider=request.provider.name,
        created_at=request.now,
        changed_at=request.now,
    )
    _assign(row, attributes)
    try:
        with use_origin(lambda: request.origin), batch_delivery(), transaction.atomic():
            row.save(force_insert=True)
            added, _ = _set_members(row, attributes.members, request)
            _record(row, "created", request, added=len(added))
            _sync_members(added, request)
    except IntegrityError as error:
        raise SCIMRefused(409, "uniqueness", "There is a group with this displayName.") from error
    return row


def change_group(row: SCIMGroup, attributes: GroupAttributes, request: ClientRequest) -> SCIMGroup:
    """Give the group these attributes and members, and return it. Nothing is written if it has
    them.

    Requires: the row is locked by `lock_group` in the open transaction. Raises: as `create_group`.
    """
    _validate(attributes)
    is_renamed = row.display_name != attributes.display_name
    is_changed = is_renamed or row.external_id != attributes.external_id
    added, removed = _set_members(row, attributes.members, request)
    if not (is_changed or added or removed):
        return row
    _assign(row, attributes)
    row.version = row.version + 1
    row.changed_at = request.now
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        raise SCIMRefused(409, "uniqueness", "There is a group with this displayName.") from error
    if is_renamed:
        change = "renamed"
    else:
        change = "changed"

    _record(row, change, request, added=len(added), removed=len(removed))

    if is_renamed:
        members = list(SCIMMembership.objects.filter(group=row.pk).values_list("member", flat=True))
    else:
        members = []

    _sync_members({*added, *removed, *members}, request)
    return row


def delete_group(row: SCIMGroup, request: ClientRequest) -> None:
    """Delete the group; its members lose its roles. Requires: as `change_group`."""
    _, removed = _set_members(row, MemberChange(keeps_others=False), request)
    _record(row, "deleted", request, removed=len(removed))
    SCIMGroup.objects.filter(pk=row.pk).delete()
    _sync_members(removed, request)


def lock_group(group_id: str, provider: str) -> SCIMGroup | None:
    """Return the group, locked until the end of the transaction."""
    pk = parse_id(group_id)
    if pk is None:
        return None
    return list_groups(provider).select_for_update(no_key=True).filter(pk=pk).first()


def lock_groups_of_user(user_id: str, provider: str) -> None:
    """Lock the groups of the user, before the user as in a change of a group, until the end of the
    transaction.
    """
    if (pk := parse_id(user_id)) is not None:
        rows = list_groups(provider).filter(
            pk__in=SCIMMembership.objects.filter(member=pk).values("group")
        )
        list(rows.order_by("pk").select_for_update(no_key=True).values_list("pk"))


def list_member_ids(groups: Sequence[SCIMGroup]) -> dict[uuid.UUID, list[str]]:
    """Return the ids of the members of each group, by one SELECT."""
    members: dict[uuid.UUID, list[str]] = {}
    rows = SCIMMembership.objects.filter(group__in=[group.pk for group in groups]).order_by("pk")
    for group_id, member_id in rows.values_list("group", "member"):
        members.setdefault(group_id, []).append(str(member_id))
    return members


def _validate(attributes: GroupAttributes) -> None:
    validate_text("displayName", attributes.display_name)
    validate_text("externalId", attributes.external_id)
    if not attributes.display_name.strip():
        raise SCIMRefused(400, "invalidValue", "displayName is required.")


def _assign(row: SCIMGroup, attributes: GroupAttributes) -> None:
    row.display_name = attributes.display_name
    row.display_name_key = build_comparison_key(attributes.display_name)
    row.external_id = attributes.external_id


def _set_members(
    row: SCIMGroup, change: MemberChange, request: ClientRequest
) -> tuple[set[uuid.UUID], set[uuid.UUID]]:
    """Store the members, and return which were added and removed. Raises: SCIMRefused for one that
    does not exist.

    A fixed number of queries: members that stay are not read if the change names those that do not.
    """
    if change == MemberChange():
        return set(), set()
    wanted = _parse_ids(change.added)
    unwanted = _parse_ids(change.removed)
    memberships = SCIMMembership.objects.filter(group=row.pk)

    if change.keeps_others:
        named = memberships.filter(member__in=wanted | unwanted)
    else:
        named = memberships

    held = set(named.values_list("member", flat=True))
    added = wanted - held
    removed = held - wanted
    known = set(list_users(row.provider).filter(pk__in=added).values_list("pk", flat=True))
    if known != added or len(wanted) < len(change.added):
        raise MemberUnknown(added - known)
    memberships.filter(member__in=removed).delete()
    new_memberships = []
    for pk in sorted(added):
        new_memberships.append(SCIMMembership(group=row, member_id=pk))
    SCIMMembership.objects.bulk_create(new_memberships)
    return added, removed


def _parse_ids(texts: Iterable[str]) -> set[uuid.UUID]:
    """Return the ids that are well-formed."""
    ids = set()
    for text in texts:
        pk = parse_id(text)
        if pk is not None:
            ids.add(pk)
    return ids


def _sync_members(members: Collection[uuid.UUID], request: ClientRequest) -> None:
    """Update the roles of these users, and the versions of their resources, which have the names of
    the groups.

    The users are locked first: a sign-in, or a change of another group, is committed before the
    groups are read, or waits. Otherwise a member that leaves two groups at once could keep the role
    of both.
    Raises: MemberUnknown: a member was deleted meanwhile.
    """
    rows = SCIMUser.objects.filter(pk__in=members).order_by("pk")
    lock_subjects_of_users(list(rows.values_list("user", flat=True)))
    # The accounts are read again: `attach_account` may have changed them.
    users = list(rows.select_for_update(no_key=True))
    deleted = [user.pk for user in users if user.deleted_at]
    if deleted:
        raise MemberUnknown(deleted)
    user_pks = [user.user_id for user in users]
    sync_group_roles(
        user_pks, provider=request.provider.name, origin=request.origin, now=request.now
    )
    SCIMUser.objects.filter(pk__in=members).update(version=F("version") + 1, changed_at=request.now)


def _record(
    row: SCIMGroup, change: str, request: ClientRequest, *, added: int = 0, removed: int = 0
) -> None:
    detail = {"change": change, "members_added": added, "members_removed": removed}
    enqueue_many(
        [
            request.build_event(
                Action.SCIM_GROUP_CHANGED, resource=f"SCIMGroup/{row.pk}", detail=detail
            )
        ]
    )
