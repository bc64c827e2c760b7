"""The tasks, where Celery looks for them. Only workers and beat import this module."""

# ruff: noqa: PLC0414 -- explicit re-exports
from celery import shared_task

from . import conf
from ._internal import clock
from ._internal.app_configs import list_installed_features
from ._internal.periodic_task import PERIODIC_TASKS, ROW_PRUNERS, periodic_task
from .claims.tasks import apply_retention as apply_retention
from .claims.tasks import scrub as scrub
from .leak_guard.task_receivers import track_task as track_task
from .login.interrupted_sign_ins import STATE_KIND, report_interrupted_sign_ins
from .replay.cache import delete_expired
from .sessions.lifecycle import delete_ended_sessions
from .sessions.tasks import end_expired_sessions as end_expired_sessions
from .sessions.tasks import end_orphaned_sessions as end_orphaned_sessions
from .sessions.tasks import sweep_revocations as sweep_revocations
from .sessions.token_revocation import delete_finished_revocations


@periodic_task("phi_oidc.prune")
def prune() -> None:
    """Delete the rows whose retention has ended: spent identifiers, sessions, revocations, and the
    rows of apps.
    """
    now = clock.now()
    before = now - conf.operational_retention()
    delete_expired(now=now, kept_kind=STATE_KIND)
    delete_ended_sessions(before=before, now=now)
    delete_finished_revocations(before=before, now=now)
    for prune_rows in ROW_PRUNERS:
        prune_rows(now=now, before=before)
    # Last, because its event needs a key.
    report_interrupted_sign_ins(now=now)


for _config in list_installed_features():
    if _config.name != __package__:
        _config.find_module("tasks")
for _name, _function in PERIODIC_TASKS.items():
    shared_task(name=_name, ignore_result=True, acks_late=True)(_function)
