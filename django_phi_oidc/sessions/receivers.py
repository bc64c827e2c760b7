"""End OIDC sessions on Django's logout and on changes of accounts and links."""

from collections.abc import Collection, Mapping
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_save, pre_delete
from django.dispatch import receiver
from django.http import HttpRequest

from .. import conf
from .._internal import clock
from ..access.receivers import record_flag_changes, record_row_changes
from ..audit.events import Action
from ..audit.outbox import enqueue
from ..audit.request_context import SESSION_KEY, Actor, current_origin, find_oidc_session_id
from ..claims.retention import lock_subjects_of_users, scrub_subject
from ..errors import HeldForLegalReasons
from ..extensions import foreign_session_observers
from ..provider.labels import find_provider_name
from ..subjects.account_changes import (
    AccountChange,
    report_address_change,
    report_changes,
)
from ..subjects.local_accounts import is_local_account
from ..subjects.models import PairwiseSubject
from .account_access import end_access_of_inactive_account, has_locked_subjects
from .activity import TIMES_KEY, create_times_entry
from .lifecycle import end_sessions, list_revocation_ids
from .models import EndReason, OIDCSession
from .tasks import end_session_and_revoke, revoke_after_commit


@receiver(user_logged_out, dispatch_uid="django_phi_oidc.sessions")
def end_on_django_logout(*, request: HttpRequest | None, **kwargs: Any) -> None:
    """End the OIDC session of the request, before Django flushes the session."""
    if request is None:
        return
    now = clock.now()
    if session_id := find_oidc_session_id(request.session):
        origin = Actor.from_request(request).origin
        end_session_and_revoke(session_id, EndReason.DJANGO_LOGOUT, origin=origin, now=now)
    else:
        for observe in foreign_session_observers:
            observe(request.session, now=now)


@receiver(pre_delete, sender=PairwiseSubject, dispatch_uid="django_phi_oidc.sessions.unlinking")
def end_sessions_on_unlink(
    *, instance: PairwiseSubject, origin: Model | Any = None, **kwargs: Any
) -> None:
    """End the live sessions of a link and erase its claims, with their events, in the transaction
    that deletes it.

    origin: what delete() was called on. When one person is deleted, their tokens are revoked after
    the commit. For a queryset they are left to the sweep, because each revocation may take its full
    time-out.
    Raises: HeldForLegalReasons, and then neither the subject nor the user is deleted.
    """
    audit_origin = current_origin()
    now = clock.now()
    # Locked: a concurrent sign-in of this subject either commits its session before this, or finds
    # no subject.
    subject = PairwiseSubject.objects.select_for_update(no_key=True).filter(pk=instance.pk).first()
    if subject is None:
        return
    if subject.is_held(now=now):
        raise HeldForLegalReasons
    live = OIDCSession.objects.live().filter(subject=instance.pk).values_list("pk", flat=True)
    ended = end_sessions(list(live), EndReason.SUBJECT_UNLINKED, origin=audit_origin, now=now)
    scrub_subject(subject, cause="unlinked", origin=audit_origin, now=now)
    enqueue(Action.SUBJECT_UNLINKED, origin=audit_origin, now=now, subject=str(instance.uuid))
    # Not if the account itself is deleted.
    if getattr(origin, "model", type(origin)) is PairwiseSubject:
        provider = find_provider_name(instance.issuer)
        report_changes([instance.user], AccountChange.UNLINKED, provider=provider, now=now)
    if isinstance(origin, Model):
        revoke_after_commit(list_revocation_ids(ended))


@receiver(pre_delete, sender=OIDCSession, dispatch_uid="django_phi_oidc.sessions.deletion")
def end_session_on_deletion(
    *, instance: OIDCSession, origin: Model | Any = None, **kwargs: Any
) -> None:
    """End a live session whose row is deleted, in that transaction: its tokens are in the row and
    nowhere else.

    origin: what delete() was called on. The tokens of one session are revoked after the commit,
    those of a queryset by the sweep.
    """
    if instance.ended_at is not None:
        return
    ended = end_sessions(
        [instance.pk], EndReason.ROW_DELETED, origin=current_origin(), now=clock.now()
    )
    if isinstance(origin, Model):
        revoke_after_commit(list_revocation_ids(ended))


@receiver(user_logged_in, dispatch_uid="django_phi_oidc.sessions.lifecycle")
def start_session_timeouts(*, request: HttpRequest | None, **kwargs: Any) -> None:
    """Start the timeouts of a password session. An OIDC sign-in stores its own times."""
    session = getattr(request, "session", None)
    if session is not None and SESSION_KEY not in session:
        session[TIMES_KEY] = create_times_entry(clock.now())


def _lock_subjects_before_account(account: Model, update_fields: Collection[str] | None) -> None:
    """Lock the account's subjects before its row, in the order of a sign-in, if the change will end
    its sessions.

    In autocommit, without a flag among the fields, the account's row is not locked any more when
    the sessions end.
    """
    if account.pk is None or has_locked_subjects(account):
        return
    is_change = _is_deactivation(account, update_fields) or _is_password_change(account)
    if is_change and transaction.get_connection().in_atomic_block:
        lock_subjects_of_users([account.pk])


def _report_account_changes(account: Model, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Report another e-mail address, and a local account that may or may not be used now."""
    user = cast(Any, account)
    now = clock.now()
    address_field = user.get_email_field_name()
    if old.get(address_field) != new.get(address_field):
        report_address_change(user, str(old[address_field] or ""), now=now)
    if old.get("is_active") != new.get("is_active") and is_local_account(user):
        if new["is_active"]:
            change = AccountChange.ACTIVATED
        else:
            change = AccountChange.DEACTIVATED
        report_changes([user], change, provider="", now=now)


record_flag_changes(
    get_user_model(),
    lock_before=_lock_subjects_before_account,
    watched=[cast(Any, get_user_model()).get_email_field_name()],
    after_change=_report_account_changes,
)


@receiver(
    post_save, sender=settings.AUTH_USER_MODEL, dispatch_uid="django_phi_oidc.sessions.account"
)
def end_sessions_on_account_change(
    *, instance: Model, created: bool, update_fields: Collection[str] | None = None, **kwargs: Any
) -> None:
    """End the access, and erase all claims, of a deactivated account; end the sessions of one with
    a new password.
    """
    if created:
        return
    if _has_new_password(instance):
        report_changes([instance], AccountChange.PASSWORD_CHANGED, provider="", now=clock.now())
    if _is_deactivation(instance, update_fields):
        end_access_of_inactive_account(instance)
    elif _is_password_change(instance):
        _end_sessions_of_users([instance.pk], EndReason.PASSWORD_CHANGED)


@receiver(m2m_changed, dispatch_uid="django_phi_oidc.sessions.roles")
def end_sessions_on_role_change(
    *,
    sender: type[Model],
    instance: Model,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    **kwargs: Any,
) -> None:
    """End the sessions of accounts whose groups or permissions change, if that is configured."""
    # The tables between users and their groups and permissions. A custom user model may have none.
    user = get_user_model()
    tables = []
    for name in ("groups", "user_permissions"):
        if hasattr(user, name):
            tables.append(getattr(user, name).through)
    is_change = action in ("post_add", "post_remove", "pre_clear") and sender in tables
    if not is_change or "roles" not in conf.end_sessions_on():
        return

    user_ids: Collection[Any] | None
    if reverse:
        user_ids = pk_set
    else:
        user_ids = [instance.pk]

    if user_ids is None:
        # All users of a group or permission are removed.
        user_ids = list(instance.user_set.values_list("pk", flat=True))  # type: ignore[attr-defined]
    _end_sessions_of_users(user_ids, EndReason.ROLES_CHANGED)


def _end_sessions_on_row_change(user_ids: Collection[Any]) -> None:
    if "roles" in conf.end_sessions_on():
        _end_sessions_of_users(user_ids, EndReason.ROLES_CHANGED)


record_row_changes(after_change=_end_sessions_on_row_change)


def _is_deactivation(user: Model, update_fields: Collection[str] | None) -> bool:
    return not getattr(user, "is_active", True) and (
        update_fields is None or "is_active" in update_fields
    )


def _is_password_change(user: Model) -> bool:
    """Return whether a new password ends the user's sessions."""
    return _has_new_password(user) and "password" in conf.end_sessions_on()


def _has_new_password(user: Model) -> bool:
    # set_password() sets it, and save() clears it at its end.
    return getattr(user, "_password", None) is not None


def _end_sessions_of_users(user_ids: Collection[Any], reason: EndReason) -> None:
    """End all sessions of these users. Tokens of one user are revoked now, those of several in the
    sweep.
    """
    live = OIDCSession.objects.live().filter(user__in=user_ids).values_list("pk", flat=True)
    ended = end_sessions(list(live), reason, origin=current_origin(), now=clock.now())
    if len(user_ids) == 1:
        revoke_after_commit(list_revocation_ids(ended))
