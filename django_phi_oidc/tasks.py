"""Celery looks for tasks here."""

from .access.emergency.tasks import tend_emergencies
from .anomalies.tasks import watch, watch_providers
from .audit.tasks import drain_outbox, seal
from .audit_exports.tasks import work_trail_jobs
from .claims.tasks import scrub
from .replay.tasks import delete_expired_identifiers
from .sessions.tasks import end_expired_sessions, sweep_revocations
from .siem.tasks import deliver

__all__ = [
    "delete_expired_identifiers",
    "deliver",
    "drain_outbox",
    "end_expired_sessions",
    "scrub",
    "seal",
    "sweep_revocations",
    "tend_emergencies",
    "watch",
    "watch_providers",
    "work_trail_jobs",
]
