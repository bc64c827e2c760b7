"""What the host project does: a visit is an act of our app, on the trail and in the outbox."""

from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import enqueue
from django_phi_oidc.audit.recorder import record


def visit() -> None:
    """Leave a row of the host, a change and a permit."""
    with transaction.atomic():
        Group.objects.create(name="visitors")
        enqueue(Action.SESSION_ENDED, origin=Origin(), now=timezone.now())
    record(Action.CLAIM_REVEALED, origin=Origin(), now=timezone.now())


def traces() -> tuple[int, int]:
    """Return the number of the host's rows, and of events on either side."""
    return Group.objects.count(), AuditEvent.objects.count() + AuditOutbox.objects.count()
