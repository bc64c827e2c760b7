"""`ready()` imports this; each import connects a receiver."""

from .metrics.setup import attach_declared_sinks
from .sessions.receivers import end_on_django_logout, end_sessions_on_unlink

__all__ = ["attach_declared_sinks", "end_on_django_logout", "end_sessions_on_unlink"]
