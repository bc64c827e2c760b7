"""The host project: a visit records an event and writes to the outbox."""

from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import enqueue
from django_phi_oidc.audit.recorder import record


def visit() -> None:
    """Create a row of the host project, an outbox row and an event."""
    with transaction.atomic():
        Group.objects.create(name="visitors")
        enqueue(Action.SESSION_ENDED, origin=Origin(), now=timezone.now())
    record(Action.CLAIM_REVEALED, origin=Origin(), now=timezone.now())


def count_rows() -> tuple[int, int]:
    """Return the number of the host project's rows, and of events and outbox rows."""
    return Group.objects.count(), AuditEvent.objects.count() + AuditOutbox.objects.count()
