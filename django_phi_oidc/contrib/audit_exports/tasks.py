"""The task that runs exports and verifications of the audit log."""

from ..._internal import clock
from ..._internal.periodic_task import periodic_task
from ..common.hostname import get_hostname
from . import conf, jobs


@periodic_task("phi_oidc.work_trail_jobs")
def work_trail_jobs() -> None:
    """Run one requested export or verification, and delete those that are a day old."""
    folder = conf.export_folder()
    jobs.run_next_job(clock=clock.now, folder=folder, hostname=get_hostname())
    jobs.delete_expired_jobs(now=clock.now(), folder=folder)
