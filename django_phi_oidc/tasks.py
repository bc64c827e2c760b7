"""The tasks, where Celery looks for them."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .access.emergency.tasks import tend_emergencies as tend_emergencies
from .anomalies.tasks import watch as watch
from .anomalies.tasks import watch_providers as watch_providers
from .audit.tasks import drain_outbox as drain_outbox
from .audit.tasks import seal as seal
from .audit_exports.tasks import work_trail_jobs as work_trail_jobs
from .claims.tasks import apply_retention as apply_retention
from .claims.tasks import scrub as scrub
from .replay.tasks import delete_expired_identifiers as delete_expired_identifiers
from .sessions.tasks import end_expired_sessions as end_expired_sessions
from .sessions.tasks import sweep_revocations as sweep_revocations
from .siem.tasks import deliver as deliver
