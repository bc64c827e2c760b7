"""Celery looks for tasks here."""

from .access.tasks import tend_emergencies
from .audit.tasks import drain_outbox, seal
from .claims.tasks import scrub
from .delivery.tasks import deliver, work_trail_jobs
from .replay.tasks import prune_spent
from .sessions.tasks import end_overdue, sweep_revocations
from .watch.tasks import watch, watch_providers

__all__ = [
    "deliver",
    "drain_outbox",
    "end_overdue",
    "prune_spent",
    "scrub",
    "seal",
    "sweep_revocations",
    "tend_emergencies",
    "watch",
    "watch_providers",
    "work_trail_jobs",
]
