"""End a person's access from outside, for example by a SCIM client or a security event, and give it
back.

The change and its events share a transaction: if the events can't be written, nothing changes. The
audit database, the provider and the message broker may be unavailable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from .._internal import clock
from ..audit.events import NewEvent, Origin
from ..audit.outbox import batch_delivery, enqueue_many
from ..audit.request_context import current_origin, use_origin
from ..claims.retention import lock_subjects_of_users, scrub_inactive_users
from ..extensions import account_observers
from .lifecycle import end_sessions, list_revocation_ids
from .models import EndReason, OIDCSession
from .recent_logouts import remember_ended_access
from .tasks import revoke_after_commit

_DEACTIVATION_ATTRIBUTE = "_phi_oidc_deactivation"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deactivation:
    """A deactivation by `disable_account`: its origin, and how tokens are revoked. The receiver of
    post_save reads it.
    """

    origin: Origin
    now: datetime
    is_inline: bool


def end_access(
    user_pk: Any,
    reason: EndReason,
    *,
    origin: Origin,
    now: datetime,
    events: Sequence[NewEvent] = (),
    is_inline: bool = True,
) -> int:
    """End all sessions of the account, and revoke its tokens, and the credentials with which a
    person could be linked to it. Return the number of sessions that ended.

    One transaction, or the caller's. The account stays active, so the person may sign in again, but
    a sign-in that is in progress is refused (`logged_out`). events: of the change that causes it.
    is_inline: the tokens are revoked after the commit, before this returns, for up to
    INLINE_SECONDS; the sweep revokes the others. Idempotent.
    Raises: KeyMissing, DatabaseError, and then nothing has changed.
    """
    with batch_delivery(), transaction.atomic():
        enqueue_many(events)
        remember_ended_access(lock_subjects_of_users([user_pk]))
        live = OIDCSession.objects.live().filter(user=user_pk).values_list("pk", flat=True)
        ended = end_sessions(
            list(live), reason, origin=origin, now=now, lease_revocations=is_inline
        )
        for observer in account_observers:
            observer.revoke_credentials(
                [user_pk], provider=None, reason=reason, origin=origin, now=now
            )
        if is_inline:
            leased = []
            for session in ended:
                for row in session.leased_revocations:
                    leased.append(row)
            revoke_after_commit(list_revocation_ids(ended), leased=leased)
    return len(ended)


def disable_account(
    user_pk: Any,
    *,
    origin: Origin,
    now: datetime,
    events: Sequence[NewEvent] = (),
    is_inline: bool = True,
) -> bool:
    """Deactivate the account, end its access as `end_access` does, and erase its claims. Return
    whether it was active.

    One transaction, or the caller's; an account that is inactive already loses its sessions all the
    same. Requires: a user model with the field `is_active`. Raises: the user model's DoesNotExist;
    as `end_access`.
    """
    deactivation = _Deactivation(origin=origin, now=now, is_inline=is_inline)
    with use_origin(lambda: origin), batch_delivery(), transaction.atomic():
        # First: on SQLite a read would not lock.
        enqueue_many(events)
        user = _get_locked_account(user_pk)
        was_active = bool(user.is_active)
        setattr(user, _DEACTIVATION_ATTRIBUTE, deactivation)
        if was_active:
            user.is_active = False
            user.save(update_fields=["is_active"])
        else:
            end_access_of_inactive_account(user)
    return was_active


def end_access_of_inactive_account(account: Any) -> None:
    """End the access of an account that is not active, and erase its claims.

    The receiver of post_save calls this for each deactivation, by `disable_account`, the admin or
    other code. One transaction, or the caller's. Raises: as `end_access`.
    """
    deactivation = getattr(account, _DEACTIVATION_ATTRIBUTE, None)
    if deactivation is None:
        deactivation = _Deactivation(origin=current_origin(), now=clock.now(), is_inline=True)
    origin = deactivation.origin
    now = deactivation.now
    with transaction.atomic():
        end_access(
            account.pk,
            EndReason.USER_INACTIVE,
            origin=origin,
            now=now,
            is_inline=deactivation.is_inline,
        )
        scrub_inactive_users([account.pk], origin=origin, now=now)


def has_locked_subjects(account: Any) -> bool:
    """Return whether `disable_account` saves this account now: it has locked the subjects."""
    return hasattr(account, _DEACTIVATION_ATTRIBUTE)


def enable_account(
    user_pk: Any, *, origin: Origin, now: datetime, events: Sequence[NewEvent] = ()
) -> bool:
    """Activate the account, so that its person can sign in again. Return whether it was inactive.

    One transaction, or the caller's. Sessions, claims and activation codes do not come back.
    Raises: the user model's DoesNotExist; KeyMissing, DatabaseError, and then nothing has changed.
    """
    with use_origin(lambda: origin), batch_delivery(), transaction.atomic():
        enqueue_many(events)
        user = _get_locked_account(user_pk)
        was_inactive = not user.is_active
        if was_inactive:
            user.is_active = True
            user.save(update_fields=["is_active"])
    return was_inactive


def _get_locked_account(user_pk: Any) -> Any:
    """Lock the account's subjects, then its row, in the order of a sign-in."""
    lock_subjects_of_users([user_pk])
    return (
        get_user_model()._base_manager.select_for_update(no_key=True, of=("self",)).get(pk=user_pk)
    )
