"""End a person's access from outside, for example by a SCIM client or a security event, and give it
back.

The change and its events share a transaction: if the events can't be written, nothing changes. The
audit database, the provider and the message broker may be unavailable.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from ..audit.events import NewEvent, Origin
from ..audit.outbox import batch_delivery, enqueue_many
from ..audit.request_context import use_origin
from ..claims.retention import lock_subjects_of_users, scrub_inactive_users
from ..contrib.invitations.invitations import revoke_activation_codes
from ..contrib.invitations.models import ActivationCode
from .lifecycle import end_sessions
from .models import EndReason, OIDCSession
from .recent_logouts import remember_ended_access
from .tasks import revoke_after_commit

_account_without_access: ContextVar[Any] = ContextVar(
    "django_phi_oidc.sessions.account_access", default=None
)


def has_lost_access(user_pk: Any) -> bool:
    """Return whether `disable_account` saves this account now, after it has ended its access:
    receivers need not.
    """
    return user_pk is not None and bool(_account_without_access.get() == user_pk)


def end_access(
    user_pk: Any,
    reason: EndReason,
    *,
    origin: Origin,
    now: datetime,
    events: Sequence[NewEvent] = (),
    is_inline: bool = True,
) -> int:
    """End all sessions of the account, and revoke its tokens and waiting activation codes. Return
    how many ended.

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
        options: Any = {"origin": origin, "now": now, "lease_revocations": is_inline}
        ended = end_sessions(list(live), reason, **options)
        codes = ActivationCode.objects.filter(user=user_pk)
        revoke_activation_codes(codes, reason=reason, origin=origin, now=now)
        if is_inline:
            leased = [row for session in ended for row in session.leased_revocations]
            revoke_after_commit(
                [pk for session in ended for pk in session.revocation_ids], leased=leased
            )
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
    with use_origin(lambda: origin), batch_delivery(), transaction.atomic():
        # First: on SQLite a read would not lock.
        enqueue_many(events)
        user = _get_locked_account(user_pk)
        end_access(user_pk, EndReason.USER_INACTIVE, origin=origin, now=now, is_inline=is_inline)
        scrub_inactive_users([user_pk], origin=origin, now=now)
        was_active = bool(user.is_active)
        if was_active:
            user.is_active = False
            token = _account_without_access.set(user_pk)
            try:
                user.save(update_fields=["is_active"])
            finally:
                _account_without_access.reset(token)
    return was_active


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
