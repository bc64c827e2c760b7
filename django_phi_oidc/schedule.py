"""The beat entries of an installation. Due times are in the tables; a message only starts a
sweep.
"""

from typing import Any


def beat_schedule(*, interval_seconds: float = 10.0) -> dict[str, dict[str, Any]]:
    """Return entries for `app.conf.beat_schedule`. interval_seconds: between two runs of the urgent
    tasks.
    """
    tasks = {
        "phi_oidc.sweep_revocations": interval_seconds,
        # Twice a minute: an abandoned session must not stay valid for more than a minute.
        "phi_oidc.end_overdue": 3 * interval_seconds,
        "phi_oidc.run_session_end_jobs": interval_seconds,
        "phi_oidc.tend_emergencies": interval_seconds,
        "phi_oidc.send_notices": interval_seconds,
        "phi_oidc.poll_signals": interval_seconds,
        "phi_oidc.drain_outbox": interval_seconds,
        "phi_oidc.seal": interval_seconds,
        "phi_oidc.export_tiles": 6 * interval_seconds,
        "phi_oidc.scrub": interval_seconds,
        "phi_oidc.deliver": interval_seconds,
        "phi_oidc.work_trail_jobs": interval_seconds,
        "phi_oidc.watch": interval_seconds,
        "phi_oidc.record_configuration": 6 * interval_seconds,
        "phi_oidc.update_overview": 6 * interval_seconds,
        # Reads all live sessions.
        "phi_oidc.check_sessions": 30 * interval_seconds,
        "phi_oidc.watch_providers": 60 * interval_seconds,
        "phi_oidc.apply_retention": 60 * interval_seconds,
        "phi_oidc.prune": 60 * interval_seconds,
        "phi_oidc.create_partitions": 60 * interval_seconds,
        # The whole log in two weeks.
        "phi_oidc.verify": 60 * interval_seconds,
    }
    # A message that no worker took before the next one is due expires: the next run finds the same
    # rows.
    return {
        name: {"task": name, "schedule": pause, "options": {"expires": pause}}
        for name, pause in tasks.items()
    }
