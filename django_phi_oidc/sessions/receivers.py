"""Whoever ends a session elsewhere ends ours: Django's own logout, and what becomes of a person's account."""

from collections.abc import Collection
from typing import Any

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
from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..audit.request_context import SESSION_KEY, Actor, find_oidc_session_id
from ..claims.legal_holds import is_on_legal_hold
from ..claims.retention import scrub_inactive_users, scrub_subject
from ..errors import HeldForLegalReasons
from ..subjects.models import PairwiseSubject
from .activity import TIMES_KEY, create_times_entry
from .lifecycle import end_sessions
from .models import EndReason, OIDCSession
from .tasks import end_session_and_revoke, revoke_after_commit


@receiver(user_logged_out, dispatch_uid="django_phi_oidc.sessions")
def end_on_django_logout(*, request: HttpRequest | None, **kwargs: Any) -> None:
    """End the OIDC session of the request, before Django flushes the session that names it."""
    session_id = find_oidc_session_id(request.session) if request is not None else None
    if request is None or session_id is None:
        return
    end_session_and_revoke(
        session_id, EndReason.DJANGO_LOGOUT, origin=Actor.from_request(request).origin, now=clock.now()
    )


@receiver(pre_delete, sender=PairwiseSubject, dispatch_uid="django_phi_oidc.sessions.unlinking")
def end_sessions_on_unlink(*, instance: PairwiseSubject, origin: Model | Any = None, **kwargs: Any) -> None:
    """End all that a link holds, in the transaction that deletes it: live sessions, claims; and tell of it.

    Raises: HeldForLegalReasons, and then nothing is deleted, neither the subject nor the user.

    origin: what delete() was called on. After the commit of one person's deletion their tokens are revoked; those of
    many at once, a queryset, are left to the sweep, or each of them could hold the request up for as long as one does.
    """
    actor, now = instance.deleted_by, clock.now()
    # The row is held: a sign-in that is opening a session of this subject comes before the look, or finds no subject.
    subject = PairwiseSubject.objects.select_for_update(no_key=True).filter(pk=instance.pk).first()
    if subject is None:
        return
    if is_on_legal_hold(subject, now=now):
        raise HeldForLegalReasons
    live = OIDCSession.objects.filter(subject=instance.pk, ended_at__isnull=True).values_list("pk", flat=True)
    ended = end_sessions(list(live), EndReason.SUBJECT_UNLINKED, origin=actor, now=now)
    scrub_subject(instance, cause="unlinked", origin=actor, now=now)
    enqueue(Action.SUBJECT_UNLINKED, origin=actor, now=now, subject=str(instance.uuid))
    if isinstance(origin, Model):
        revoke_after_commit([pk for each in ended for pk in each.revocation_ids])


@receiver(user_logged_in, dispatch_uid="django_phi_oidc.sessions.lifecycle")
def start_session_timeouts(*, request: HttpRequest | None, **kwargs: Any) -> None:
    """Start the timeouts of a session that is not ours; a sign-in by OpenID Connect has written its own."""
    session = getattr(request, "session", None)
    if session is not None and SESSION_KEY not in session:
        session[TIMES_KEY] = create_times_entry(clock.now())


@receiver(post_save, sender=settings.AUTH_USER_MODEL, dispatch_uid="django_phi_oidc.sessions.account")
def end_sessions_on_account_change(
    *, instance: Model, created: bool, update_fields: Collection[str] | None = None, **kwargs: Any
) -> None:
    """End the sessions of an account that is deactivated, or that has a new password, in the transaction of that.

    All claims of a deactivated one are erased, those that outlive its sessions, too.
    """
    if created:
        return
    # What set_password() has left, until save() is done.
    is_new_password = getattr(instance, "_password", None) is not None
    if not getattr(instance, "is_active", True) and (update_fields is None or "is_active" in update_fields):
        with transaction.atomic():
            _end_sessions_of_users([instance.pk], EndReason.USER_INACTIVE)
            scrub_inactive_users([instance.pk], origin=Origin(), now=clock.now())
    elif is_new_password and "password" in conf.end_sessions_on():
        _end_sessions_of_users([instance.pk], EndReason.PASSWORD_CHANGED)


@receiver(m2m_changed, dispatch_uid="django_phi_oidc.sessions.roles")
def end_sessions_on_role_change(
    *, sender: type[Model], instance: Model, action: str, reverse: bool, pk_set: set[Any] | None, **kwargs: Any
) -> None:
    """End the sessions of accounts whose groups or permissions are changed, where the host says so."""
    if action not in ("post_add", "post_remove", "pre_clear") or sender not in _list_role_tables():
        return
    if "roles" not in conf.end_sessions_on():
        return
    if not reverse:
        _end_sessions_of_users([instance.pk], EndReason.ROLES_CHANGED)
    elif pk_set is not None:
        _end_sessions_of_users(pk_set, EndReason.ROLES_CHANGED)
    else:
        # All of a group's, or of a permission's.
        _end_sessions_of_users(list(instance.user_set.values_list("pk", flat=True)), EndReason.ROLES_CHANGED)  # type: ignore[attr-defined]


def _list_role_tables() -> set[type[Model]]:
    """Return the tables between accounts and their groups and permissions; a user model of the host's may have none."""
    user = get_user_model()
    return {getattr(user, name).through for name in ("groups", "user_permissions") if hasattr(user, name)}


def _end_sessions_of_users(user_ids: Collection[Any], reason: EndReason) -> None:
    """End all sessions of these accounts. One person's tokens are revoked at once, those of many by the sweep."""
    live = OIDCSession.objects.filter(user__in=user_ids, ended_at__isnull=True).values_list("pk", flat=True)
    ended = end_sessions(list(live), reason, origin=Origin(), now=clock.now())
    if len(user_ids) == 1:
        revoke_after_commit([pk for each in ended for pk in each.revocation_ids])
