"""Users of SCIM clients: create, change and delete them, each change with its event in one
transaction.
"""

import unicodedata
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...access.roles import Role
from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import batch_delivery, enqueue_many
from ...audit.request_context import use_origin
from ...claims.retention import lock_subjects_of_users
from ...config.providers import ProviderDeclaration
from ...crypto import keyring
from ...errors import IDTokenError, SubjectTaken
from ...sessions.account_access import disable_account, enable_account
from ...subjects.account_fields import build_account_fields, create_username
from ...subjects.linking import find_linked_subject, link_existing_user, validate_linkable_sub
from ...subjects.local_accounts import list_local_account_names
from ...subjects.models import PairwiseSubject
from . import conf as scim_conf
from .group_role_sync import lock_sole_roles
from .memberships import sync_group_roles
from .models import MAX_LENGTH, SCIMGroup, SCIMMembership, SCIMUser


class SCIMRefused(Exception):
    """A request of a client is refused. scim_type: of RFC 7644 3.12, or empty. The message contains
    no value.
    """

    def __init__(self, status: int, scim_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.scim_type = scim_type


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """A request of an authenticated client."""

    provider: ProviderDeclaration
    origin: Origin
    """The client is the actor."""
    now: datetime
    is_inline: bool = True
    """Whether tokens are revoked before the response; otherwise the sweep revokes them."""

    def build_event(self, action: Action, **fields: Any) -> NewEvent:
        return NewEvent(
            action=action, origin=self.origin, now=self.now, provider=self.provider.name, **fields
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAttributes:
    """What is kept of a User resource."""

    user_name: str
    external_id: str = ""
    active: bool | None = None
    """None: not assigned."""
    sub: str = field(default="", repr=False)
    """Of the extension; empty if the client did not send it. It is not stored."""


def list_users(provider: str) -> QuerySet[SCIMUser]:
    """Return the users that clients of the provider see."""
    return SCIMUser.objects.filter(provider=provider, deleted_at=None)


def build_comparison_key(text: str) -> str:
    """Return the text as names are compared: NFC, in lower case. Spec: RFC 7643 2.2 (`caseExact` is
    false).
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def validate_text(name: str, value: str) -> None:
    """Raises: SCIMRefused: longer than 255 characters, or with control characters."""
    if (
        len(value) > MAX_LENGTH
        or len(build_comparison_key(value)) > MAX_LENGTH
        or not value.isprintable()
    ):
        raise SCIMRefused(
            400, "invalidValue", f"{name} must be at most {MAX_LENGTH} printable characters."
        )


@sensitive_variables("attributes", "sub")
def create_user(attributes: UserAttributes, request: ClientRequest) -> SCIMUser:
    """Create a user: for the account that the `sub` is linked to, otherwise for a new account.

    A user that a client of this provider has deleted comes back, if the `sub` is that of its
    account.
    Raises: SCIMRefused: the name or the account has a user; KeyRingError, SubjectKeyMissing,
    DatabaseError.
    """
    _validate(attributes)
    try:
        with use_origin(lambda: request.origin), batch_delivery(), transaction.atomic():
            account = _find_account(attributes.sub, request)
            if account is None:
                user = _create_row(
                    _create_account(request, sub=attributes.sub), attributes, request
                )
            elif (row := SCIMUser.objects.filter(user=account.pk).first()) is None:
                user = _create_row(account, attributes, request)
            else:
                user = _revive_row(row, attributes, request)
            resource = f"user/{user.user_id}"
            detail = {"active": attributes.active is not False}
            enqueue_many(
                [request.build_event(Action.SCIM_USER_CREATED, resource=resource, detail=detail)]
            )
            apply_activity(user, attributes.active is not False, request)
            SCIMUser.objects.filter(pk=user.pk).update(
                has_disabled_account=user.has_disabled_account
            )
            return user
    except IntegrityError as error:
        raise SCIMRefused(409, "uniqueness", "There is a user with this userName.") from error


@sensitive_variables("attributes")
def change_user(row: SCIMUser, attributes: UserAttributes, request: ClientRequest) -> SCIMUser:
    """Give the user these attributes, and return it. Nothing is written if it has them.

    active False: the account is disabled; True: it is enabled, if a client of this provider has
    disabled it.
    Requires: the row is locked by `lock_user` in the open transaction. Raises: as `create_user`.
    """
    _validate(attributes)
    changed = []
    for name, old, new in (
        ("userName", row.user_name, attributes.user_name),
        ("externalId", row.external_id, attributes.external_id),
        ("active", row.active, attributes.active),
    ):
        if old != new:
            changed.append(name)
    if attributes.sub and _link_account(row, attributes.sub, request):
        changed.append("sub")
    if not changed:
        return row
    if not {"userName", "externalId", "sub"}.isdisjoint(changed):
        resource = f"user/{row.user_id}"
        detail = {"attributes": changed}
        enqueue_many(
            [request.build_event(Action.SCIM_USER_CHANGED, resource=resource, detail=detail)]
        )
    if "active" in changed and attributes.active is not None:
        apply_activity(row, attributes.active, request)
    _assign(row, attributes)
    row.version = row.version + 1
    row.changed_at = request.now
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        raise SCIMRefused(409, "uniqueness", "There is a user with this userName.") from error
    return row


def delete_user(row: SCIMUser, request: ClientRequest) -> None:
    """Disable the account, remove its groups and their roles, and hide the user from all clients.

    The account and its audit trail stay; userName and externalId are erased. Requires: as
    `change_user`.
    Spec: RFC 7644 3.6.
    """
    enqueue_many([request.build_event(Action.SCIM_USER_DELETED, resource=f"user/{row.user_id}")])
    # Before groups take roles away, and, like that, before the account is written: see
    # `sync_roles`.
    sole_roles = lock_sole_roles(row.user_id)
    groups = list(SCIMMembership.objects.filter(member=row.pk).values_list("group", flat=True))
    if groups:
        SCIMMembership.objects.filter(member=row.pk).delete()
        SCIMGroup.objects.filter(pk__in=groups).update(
            version=F("version") + 1, changed_at=request.now
        )
        sync_group_roles(
            [row.user_id], provider=row.provider, origin=request.origin, now=request.now
        )
    apply_activity(row, False, request, sole_roles=sole_roles)
    # The names are not needed any more: a user who comes back is found by the `sub`.
    _assign(row, UserAttributes(user_name="", active=False))
    row.deleted_at = request.now
    row.changed_at = request.now
    row.version = row.version + 1
    row.save()


def find_user(user_id: str, provider: str) -> SCIMUser | None:
    """Return the user that clients of the provider see under that id, or None."""
    pk = parse_id(user_id)
    if pk is None:
        return None
    return list_users(provider).filter(pk=pk).first()


def lock_user(user_id: str, provider: str) -> SCIMUser | None:
    """Return the user, locked until the end of the transaction together with its subjects, in their
    order.
    """
    if (row := find_user(user_id, provider)) is None:
        return None
    lock_subjects_of_users([row.user_id])
    return list_users(provider).select_for_update(no_key=True).filter(pk=row.pk).first()


def parse_id(text: str) -> uuid.UUID | None:
    """Return the id of a resource in its only form, or None."""
    try:
        pk = uuid.UUID(text)
    except ValueError:
        return None
    if str(pk) != text:
        return None
    return pk


def has_foreign_id(ids: Collection[uuid.UUID], provider: str) -> bool:
    """Return whether a resource of another provider has one of the ids, which are unknown to the
    client.
    """
    if not ids:
        return False
    foreign_users = SCIMUser.objects.filter(pk__in=ids).exclude(provider=provider)
    foreign_groups = SCIMGroup.objects.filter(pk__in=ids).exclude(provider=provider)
    return foreign_users.exists() or foreign_groups.exists()


def _validate(attributes: UserAttributes) -> None:
    validate_text("userName", attributes.user_name)
    validate_text("externalId", attributes.external_id)
    if not attributes.user_name.strip():
        raise SCIMRefused(400, "invalidValue", "userName is required.")


@sensitive_variables("sub")
def _find_account(sub: str, request: ClientRequest) -> Any:
    """Return the account that the `sub` is linked to; None if there is none, or no `sub`."""
    if not sub:
        return None
    _validate_sub(sub, request)
    keys = keyring.get_keys("subject")
    subject = find_linked_subject(issuer=request.provider.issuer, sub=sub, keys=keys)
    if subject is None:
        return None
    return subject.user


@sensitive_variables("sub")
def _validate_sub(sub: str, request: ClientRequest) -> None:
    if scim_conf.scim()[request.provider.name].subject != "extension":
        raise SCIMRefused(400, "invalidValue", "This provider's clients send no sub.")
    try:
        validate_linkable_sub(sub, provider=request.provider)
    except IDTokenError as error:
        raise SCIMRefused(
            400, "invalidValue", "sub is not one that a sign-in would accept."
        ) from error


@sensitive_variables("sub")
def _create_account(request: ClientRequest, *, sub: str) -> Any:
    """Create an account with an opaque name and no data about the person, linked to the `sub`, if
    any.
    """
    model: Any = get_user_model()
    account = model._default_manager.create_user(
        **build_account_fields(model, username=create_username(model))
    )
    if sub:
        _link(account, sub, request)
    return account


@sensitive_variables("sub")
def _link_account(row: SCIMUser, sub: str, request: ClientRequest) -> bool:
    """Link the account of the user to the `sub`, unless it is. Return whether it was not.

    Raises: SCIMRefused: the account, or the `sub`, is linked otherwise. A link never changes.
    """
    linked = _find_account(sub, request)
    if linked is not None and linked.pk == row.user_id:
        return False
    is_linked = PairwiseSubject.objects.filter(
        user=row.user_id, issuer=request.provider.issuer
    ).exists()
    if linked is not None or is_linked:
        raise SCIMRefused(400, "mutability", "The sub of a user can't change.")
    _link(get_user_model()._base_manager.get(pk=row.user_id), sub, request)
    return True


@sensitive_variables("sub")
def _link(account: Any, sub: str, request: ClientRequest) -> None:
    keys = keyring.get_keys("subject")
    try:
        link_existing_user(
            account,
            sub=sub,
            origin=request.origin,
            provider=request.provider,
            keys=keys,
            now=request.now,
        )
    except SubjectTaken as error:
        raise SCIMRefused(409, "uniqueness", "There is a user with this sub.") from error


def _create_row(account: Any, attributes: UserAttributes, request: ClientRequest) -> SCIMUser:
    row = SCIMUser(
        id=randomness.uuid4(),
        provider=request.provider.name,
        user=account,
        created_at=request.now,
        changed_at=request.now,
    )
    _assign(row, replace(attributes, active=attributes.active is not False))
    row.save(force_insert=True)
    return row


def _revive_row(row: SCIMUser, attributes: UserAttributes, request: ClientRequest) -> SCIMUser:
    """Let a deleted user come back. Raises: SCIMRefused: it is not deleted, or of another
    provider.
    """
    if row.deleted_at is None or row.provider != request.provider.name:
        raise SCIMRefused(409, "uniqueness", "The account has a user.")
    _assign(row, replace(attributes, active=attributes.active is not False))
    row.deleted_at = None
    row.changed_at = request.now
    row.version = row.version + 1
    row.save()
    return row


def _assign(row: SCIMUser, attributes: UserAttributes) -> None:
    row.user_name = attributes.user_name
    row.user_name_key = build_comparison_key(attributes.user_name)
    row.external_id = attributes.external_id
    row.active = attributes.active


def refuse_local_accounts(user_pks: Collection[Any]) -> None:
    """Raises: SCIMRefused: one is a local account, which may have become one after the user was
    created.
    """
    if names := list_local_account_names():
        model: Any = get_user_model()
        if model._base_manager.filter(
            pk__in=user_pks, **{f"{model.USERNAME_FIELD}__in": names}
        ).exists():
            raise SCIMRefused(409, "uniqueness", "This account is managed by the portal alone.")


def apply_activity(
    row: SCIMUser,
    is_active: bool,
    request: ClientRequest,
    *,
    sole_roles: Sequence[Role] | None = None,
) -> None:
    """Disable the account, or enable it if a client has disabled it: an administrator's decision
    stands.

    sole_roles: of `lock_sole_roles`; required if roles of the account were changed in this
    transaction.
    Raises: as `refuse_local_accounts`.
    """
    refuse_local_accounts([row.user_id])
    resource = f"user/{row.user_id}"
    if not is_active:
        events = [request.build_event(Action.SCIM_USER_DISABLED, resource=resource)]
        if sole_roles is None:
            sole_roles = lock_sole_roles(row.user_id)
        if sole_roles:
            # Access ends in any case: the last administrator can be a leaver, too.
            role_names = [role.name for role in sole_roles]
            detail = {"rule": "last_administrator_disabled", "roles": role_names}
            events.append(
                request.build_event(Action.ALERT_RAISED, resource=resource, detail=detail)
            )
        was_active = disable_account(
            row.user_id,
            events=events,
            is_inline=request.is_inline,
            origin=request.origin,
            now=request.now,
        )
        row.has_disabled_account = row.has_disabled_account or was_active
    elif row.has_disabled_account:
        events = [request.build_event(Action.SCIM_USER_ENABLED, resource=resource)]
        enable_account(row.user_id, events=events, origin=request.origin, now=request.now)
        row.has_disabled_account = False


def build_users_page(rows: Sequence[SCIMUser]) -> dict[uuid.UUID, list[SCIMGroup]]:
    """Return the groups of each of the users, by one SELECT."""
    groups: dict[uuid.UUID, list[SCIMGroup]] = {}
    memberships = SCIMMembership.objects.filter(member__in=[row.pk for row in rows]).select_related(
        "group"
    )
    for membership in memberships.order_by("group__display_name_key"):
        groups.setdefault(membership.member_id, []).append(membership.group)
    return groups
