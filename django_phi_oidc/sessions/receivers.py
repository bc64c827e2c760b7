"""Whoever ends a session elsewhere ends ours: Django's own logout, and the deletion of a person's link or account."""

from typing import Any

from django.contrib.auth.signals import user_logged_out
from django.db.models import Model
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.http import HttpRequest

from .. import clock
from ..audit.events import Action
from ..audit.outbox import enqueue
from ..audit.request import Actor, session_id_of
from ..claims.scrubbing import scrub_subject
from ..subjects.models import PairwiseSubject
from .ending import end_session
from .models import EndReason, OIDCSession
from .tasks import revoke_soon


@receiver(user_logged_out, dispatch_uid="django_phi_oidc.sessions")
def end_on_django_logout(*, request: HttpRequest | None, **kwargs: Any) -> None:
    """End the OIDC session of the request, before Django flushes the session that names it."""
    session_id = session_id_of(request.session) if request is not None else None
    if request is None or session_id is None:
        return
    origin = Actor.from_request(request).origin
    ended = end_session(session_id, EndReason.DJANGO_LOGOUT, origin=origin, now=clock.now())
    if ended:
        revoke_soon(ended.revocations)


@receiver(pre_delete, sender=PairwiseSubject, dispatch_uid="django_phi_oidc.sessions.unlinking")
def end_with_the_subject(*, instance: PairwiseSubject, origin: Model | Any = None, **kwargs: Any) -> None:
    """End all that a link holds, in the transaction that deletes it: live sessions, claims; and tell of it.

    origin: what delete() was called on. After the commit of one person's deletion their tokens are revoked; those of
    many at once, a queryset, are left to the sweep, or each of them could hold the request up for as long as one does.
    """
    # The row is held: a sign-in that is opening a session of this subject comes before the look, or finds no subject.
    if not PairwiseSubject.objects.select_for_update().filter(pk=instance.pk):
        return
    actor, now = instance.deleted_by, clock.now()
    live = OIDCSession.objects.filter(subject=instance.pk, ended_at__isnull=True).values_list("pk", flat=True)
    ended = [end_session(pk, EndReason.SUBJECT_UNLINKED, origin=actor, now=now) for pk in live]
    scrub_subject(instance, cause="unlinked", origin=actor, now=now)
    enqueue(Action.SUBJECT_UNLINKED, origin=actor, now=now, subject=str(instance.uuid))
    if isinstance(origin, Model):
        revoke_soon([pk for each in ended if each for pk in each.revocations])
