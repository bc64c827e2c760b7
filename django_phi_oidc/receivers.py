"""`ready()` imports this module; each import connects a receiver."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .metrics.setup import attach_declared_sinks as attach_declared_sinks
from .sessions.receivers import end_on_django_logout as end_on_django_logout
from .sessions.receivers import end_sessions_on_unlink as end_sessions_on_unlink
