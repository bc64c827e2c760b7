"""Celery looks for tasks here."""

from .audit.tasks import drain_outbox
from .claims.tasks import scrub
from .replay.tasks import prune_spent
from .sessions.tasks import revoke, sweep_revocations

__all__ = ["drain_outbox", "prune_spent", "revoke", "scrub", "sweep_revocations"]
