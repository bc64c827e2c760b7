"""The beat entries that an installation needs. Due times live in the tables; a message only wakes a sweep."""

from typing import Any


def beat_schedule(*, every: float = 10.0) -> dict[str, dict[str, Any]]:
    """Return entries for `app.conf.beat_schedule`; every: seconds between two runs of the pressing ones."""
    tasks = {
        "phi_oidc.sweep_revocations": every,
        # Twice in the minute after which nobody is to find an abandoned session alive.
        "phi_oidc.end_overdue": 3 * every,
        "phi_oidc.tend_emergencies": every,
        "phi_oidc.drain_outbox": every,
        "phi_oidc.seal": every,
        "phi_oidc.scrub": every,
        "phi_oidc.deliver": every,
        "phi_oidc.work_trail_jobs": every,
        "phi_oidc.watch": every,
        "phi_oidc.watch_providers": 60 * every,
        "phi_oidc.prune_spent": 60 * every,
    }
    # A run that nobody took before the next one is due is dropped: it would find nothing that the next one does not.
    return {name: {"task": name, "schedule": pause, "options": {"expires": pause}} for name, pause in tasks.items()}
