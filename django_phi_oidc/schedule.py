"""The beat entries that an installation needs. Due times live in the tables; a message only wakes a sweep."""

from typing import Any


def beat_schedule(*, interval_seconds: float = 10.0) -> dict[str, dict[str, Any]]:
    """Return entries for `app.conf.beat_schedule`; every: seconds between two runs of the pressing ones."""
    tasks = {
        "phi_oidc.sweep_revocations": interval_seconds,
        # Twice in the minute after which nobody is to find an abandoned session alive.
        "phi_oidc.end_overdue": 3 * interval_seconds,
        "phi_oidc.tend_emergencies": interval_seconds,
        "phi_oidc.drain_outbox": interval_seconds,
        "phi_oidc.seal": interval_seconds,
        "phi_oidc.scrub": interval_seconds,
        "phi_oidc.deliver": interval_seconds,
        "phi_oidc.work_trail_jobs": interval_seconds,
        "phi_oidc.watch": interval_seconds,
        "phi_oidc.watch_providers": 60 * interval_seconds,
        "phi_oidc.prune_spent": 60 * interval_seconds,
    }
    # A run that nobody took before the next one is due is dropped: it would find nothing that the next one does not.
    return {name: {"task": name, "schedule": pause, "options": {"expires": pause}} for name, pause in tasks.items()}
