"""`ready()` imports this module; each import connects a receiver."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .access.receivers import record_assignments as record_assignments
from .claims.receivers import refuse_deletion_of_held_claim as refuse_deletion_of_held_claim
from .leak_guard.receivers import track_request as track_request
from .sessions.receivers import end_on_django_logout as end_on_django_logout
from .sessions.receivers import end_sessions_on_unlink as end_sessions_on_unlink
