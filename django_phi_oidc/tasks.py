"""The tasks, where Celery looks for them. Only workers and beat import this module."""

# ruff: noqa: PLC0414 -- explicit re-exports
from celery import shared_task

from . import conf
from ._internal import clock
from ._internal.periodic_task import PERIODIC_TASKS, periodic_task
from .audit.log.cosigned_checkpoints import delete_old_cosignatures
from .audit.tasks import create_partitions as create_partitions
from .audit.tasks import drain_outbox as drain_outbox
from .audit.tasks import export_tiles as export_tiles
from .audit.tasks import record_configuration as record_configuration
from .audit.tasks import seal as seal
from .audit.tasks import verify as verify
from .claims.tasks import apply_retention as apply_retention
from .claims.tasks import scrub as scrub
from .contrib.audit_exports.tasks import work_trail_jobs as work_trail_jobs
from .contrib.emergency.tasks import tend_emergencies as tend_emergencies
from .contrib.individual_rights.accounting import get_accounting_start
from .contrib.individual_rights.accounting_copies import delete_old_copies
from .contrib.monitoring.alerts import delete_acknowledged_alerts
from .contrib.monitoring.tasks import watch as watch
from .contrib.monitoring.tasks import watch_providers as watch_providers
from .contrib.notices.devices import delete_unused_devices
from .contrib.notices.notices import delete_finished_notices
from .contrib.notices.tasks import send_notices as send_notices
from .contrib.officer_admin.tasks import update_overview as update_overview
from .contrib.shared_signals.tasks import poll_signals as poll_signals
from .contrib.siem.tasks import deliver as deliver
from .leak_guard.task_receivers import track_task as track_task
from .login.interrupted_sign_ins import STATE_KIND, report_interrupted_sign_ins
from .replay.cache import delete_expired
from .sessions.end_jobs import delete_old_jobs
from .sessions.lifecycle import delete_ended_sessions
from .sessions.tasks import end_expired_sessions as end_expired_sessions
from .sessions.tasks import end_orphaned_sessions as end_orphaned_sessions
from .sessions.tasks import run_session_end_jobs as run_session_end_jobs
from .sessions.tasks import sweep_revocations as sweep_revocations
from .sessions.token_revocation import delete_finished_revocations


@periodic_task("phi_oidc.prune")
def prune() -> None:
    """Delete the rows whose retention has ended: spent identifiers, sessions, revocations, alerts
    and others.
    """
    now = clock.now()
    before = now - conf.operational_retention()
    delete_expired(now=now, kept_kind=STATE_KIND)
    delete_ended_sessions(before=before, now=now)
    delete_finished_revocations(before=before, now=now)
    delete_old_jobs(before=before)
    delete_acknowledged_alerts(before=before)
    delete_finished_notices(before=before)
    delete_unused_devices(now=now)
    delete_old_cosignatures()
    # What was given is documented for as long as the right to an accounting goes back.
    delete_old_copies(before=get_accounting_start(now))
    # Last, because its event needs a key.
    report_interrupted_sign_ins(now=now)


for _name, _function in PERIODIC_TASKS.items():
    shared_task(name=_name, ignore_result=True, acks_late=True)(_function)
