"""Attach a SCIM user to the account that its person had before: a decision of an officer, not of a
client.
"""

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from ... import conf
from ...audit.events import Action, Origin
from ...audit.outbox import batch_delivery, enqueue_many
from ...audit.request_context import use_origin
from ...claims.retention import lock_subjects_of_users
from ...sessions.account_access import disable_account
from ...sessions.models import OIDCSession
from ...subjects.models import PairwiseSubject
from . import conf as scim_conf
from .group_role_sync import lock_sole_roles
from .memberships import sync_group_roles
from .models import SCIMUser
from .scim_groups import lock_groups_of_user
from .scim_users import (
    ClientRequest,
    SCIMRefused,
    apply_activity,
    parse_id,
    refuse_local_accounts,
)


def attach_account(
    resource_id: str, user: Any, *, origin: Origin, now: datetime, is_dry_run: bool = False
) -> Any:
    """Attach the SCIM user to that account, and disable the account that was created for it, which
    this returns.

    The roles of its groups move with it. If the client has set `active` to false, the account is
    disabled. Otherwise it is enabled if a client has disabled it, for example by deleting an
    earlier SCIM user of the account.
    One transaction, with the events. is_dry_run: nothing is changed.
    Raises: SCIMRefused: there is no such user; the account has a SCIM user or no link to its
    provider; one of the two accounts is a local one; or a person has signed in to the account that
    was created. KeyMissing, DatabaseError, and then nothing has changed.
    """
    pk = parse_id(resource_id)
    with use_origin(lambda: origin), batch_delivery(), transaction.atomic():
        if pk is None:
            row = None
        else:
            row = SCIMUser.objects.filter(pk=pk, deleted_at=None).first()

        if row is None or row.provider not in scim_conf.scim():
            raise SCIMRefused(
                404, "", "There is no SCIM user with this id, of a provider with the option scim."
            )
        # In this order, as changes of groups and users by a client: see `lock_user`.
        lock_groups_of_user(resource_id, row.provider)
        lock_subjects_of_users([row.user_id, user.pk])
        row = SCIMUser.objects.select_for_update(no_key=True).get(pk=row.pk)
        _validate(row, user)
        created = get_user_model()._base_manager.get(pk=row.user_id)
        if not is_dry_run:
            request = ClientRequest(provider=conf.providers()[row.provider], origin=origin, now=now)
            _attach(row, created, user, request)
    return created


def _validate(row: SCIMUser, user: Any) -> None:
    # Locked: a deleted one does not come back meanwhile.
    earlier = SCIMUser.objects.select_for_update().filter(user=user.pk).first()
    if earlier is not None and earlier.deleted_at is None:
        raise SCIMRefused(409, "", "The account has a SCIM user.")
    issuer = conf.providers()[row.provider].issuer
    if not PairwiseSubject.objects.filter(user=user.pk, issuer=issuer).exists():
        raise SCIMRefused(409, "", "The account is not linked to a subject of this provider.")
    created_is_used = PairwiseSubject.objects.filter(user=row.user_id).exists()
    if created_is_used or OIDCSession.objects.filter(user=row.user_id).exists():
        raise SCIMRefused(409, "", "The account of the SCIM user is linked to a person.")
    refuse_local_accounts([row.user_id, user.pk])


def _attach(row: SCIMUser, created: Any, user: Any, request: ClientRequest) -> None:
    detail = {"attributes": ["account"]}
    fields = []
    for account in (user, created):
        fields.append({"resource": f"user/{account.pk}", "detail": detail})
    enqueue_many([request.build_event(Action.SCIM_USER_CHANGED, **own) for own in fields])
    earlier = SCIMUser.objects.filter(user=user.pk)
    row.has_disabled_account = earlier.filter(
        provider=row.provider, has_disabled_account=True
    ).exists()
    earlier.delete()
    row.user = user
    row.version = row.version + 1
    row.changed_at = request.now
    row.save()
    is_active = row.active is not False
    # Before the roles change. Both before the accounts are written: see `sync_roles`.
    if not is_active:
        sole_roles = lock_sole_roles(user.pk)
    else:
        sole_roles = []

    sync_group_roles(
        [created.pk, user.pk], provider=row.provider, origin=request.origin, now=request.now
    )
    apply_activity(row, is_active, request, sole_roles=sole_roles)
    row.save(update_fields=["has_disabled_account"])
    disable_account(created.pk, origin=request.origin, now=request.now)
